//! Which slices a comparison is made of, in which order, under which names; as a file, so
//! that an interrupted one can be gone on with. Pure. Called by `compare` and `report`.
//!
//! ```text
//! pair      1     2     3     4          the order turns with each pair: what drifts
//! order    A B   B A   A B   B A …       (heat, page cache, disk) favours nobody
//!              C                         the ceiling once, after the first pair
//! ```

use serde::{Deserialize, Serialize};

/// Grows when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;
pub const TOOL: &str = "ottla bench compare";
/// In the comparison's directory.
pub const PLAN_FILE: &str = "compare.json";

/// What is compared, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    pub schema: u32,
    pub tool: String,
    /// Short and unique among the comparisons of a report, which it sorts by.
    pub name: String,
    /// For people: what this comparison shows.
    pub title: String,
    pub a: Side,
    pub b: Side,
    pub ceiling: Option<Side>,
    pub pairs: u32,
    /// What runs in each slice, without what is different in each: a scenario with its
    /// options or, with `external`, a program.
    pub command: Vec<String>,
    pub external: bool,
    /// The program itself starts what it measures; nothing is frozen, asked or deleted.
    pub unserved: bool,
    /// Of each slice's topic, where the comparison creates it.
    pub topic_partitions: Option<i32>,
    pub topic_configs: Vec<String>,
}

/// Address and process aren't here: they may be others after a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Side {
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    A,
    B,
    Ceiling,
}

/// One run of the command against one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// From 1.
    pub pair: u32,
    pub role: Role,
}

impl Plan {
    pub fn slices(&self) -> Vec<Slice> {
        let mut slices = Vec::new();
        for pair in 1..=self.pairs {
            let mut roles = [Role::A, Role::B];
            if pair % 2 == 0 {
                roles.reverse();
            }
            slices.extend(roles.map(|role| Slice { pair, role }));
            if pair == 1 && self.ceiling.is_some() {
                let role = Role::Ceiling;
                slices.push(Slice { pair, role });
            }
        }
        slices
    }

    pub fn side(&self, role: Role) -> Option<&Side> {
        match role {
            Role::A => Some(&self.a),
            Role::B => Some(&self.b),
            Role::Ceiling => self.ceiling.as_ref(),
        }
    }

    /// Of the slice's result, in the comparison's directory.
    pub fn file_name(&self, slice: Slice) -> String {
        let name = self.side(slice.role).map_or("none", |side| &side.name);
        format!("{:02}-{name}.json", slice.pair)
    }

    /// Whether results of a comparison with this plan belong to `other`'s, too; it may have
    /// fewer or more pairs.
    pub fn continues(&self, other: &Plan) -> bool {
        let pairs = other.pairs;
        Plan {
            pairs,
            ..self.clone()
        } == *other
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("its maps have string keys") + "\n"
    }

    pub fn from_json(text: &str) -> Result<Plan, String> {
        let plan: Plan = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if plan.tool != TOOL || plan.schema == 0 || plan.schema > SCHEMA {
            return Err(format!("no plan of {TOOL} with schema {SCHEMA}"));
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pairs: u32, ceiling: bool) -> Plan {
        let side = |name: &str| Side {
            name: name.to_owned(),
        };
        Plan {
            schema: SCHEMA,
            tool: TOOL.to_owned(),
            a: side("ottla"),
            b: side("kafka"),
            ceiling: ceiling.then(|| side("floor")),
            pairs,
            ..Default::default()
        }
    }

    #[test]
    fn the_order_turns_with_each_pair_and_the_ceiling_comes_once() {
        let names = |plan: Plan| -> Vec<String> {
            let slices = plan.slices().into_iter();
            slices.map(|slice| plan.file_name(slice)).collect()
        };
        assert_eq!(
            names(plan(3, true)),
            [
                "01-ottla.json",
                "01-kafka.json",
                "01-floor.json",
                "02-kafka.json",
                "02-ottla.json",
                "03-ottla.json",
                "03-kafka.json",
            ]
        );
        assert_eq!(names(plan(1, false)), ["01-ottla.json", "01-kafka.json"]);
    }

    #[test]
    fn a_plan_is_continued_with_more_pairs_but_not_as_another() {
        let before = plan(2, true);
        assert_eq!(Plan::from_json(&before.to_json()), Ok(before.clone()));
        assert!(plan(5, true).continues(&before));
        assert!(!plan(2, false).continues(&before));
        assert!(Plan::from_json("{}").is_err());
    }
}
