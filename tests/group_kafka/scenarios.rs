//! The sessions. Each uses groups of its own.

use crate::session::Session;
use crate::{lifetimes, members, offsets};

pub type Scenario = fn(&mut Session<'_>);

pub const ALL: &[(&str, Scenario)] = &[
    ("one member, join 0 sync 0", |s| {
        members::one_member(s, "one-0", 0, 0)
    }),
    ("one member, join 1 sync 1", |s| {
        members::one_member(s, "one-1", 1, 1)
    }),
    ("one member, join 2 sync 2", |s| {
        members::one_member(s, "one-2", 2, 2)
    }),
    ("one member, join 4 sync 3", |s| {
        members::one_member(s, "one-4", 4, 3)
    }),
    ("one member, join 5 sync 3", |s| {
        members::one_member(s, "one-5", 5, 3)
    }),
    ("one member, join 6 sync 4", |s| {
        members::one_member(s, "one-6", 6, 4)
    }),
    ("one member, join 7 sync 5", |s| {
        members::one_member(s, "one-7", 7, 5)
    }),
    ("one member, join 9 sync 5", |s| {
        members::one_member(s, "one-9", 9, 5)
    }),
    ("refused joins", members::refused_joins),
    ("strangers", members::strangers),
    ("a second member", members::second_member),
    ("rejoins", members::rejoins),
    (
        "a member leaves while others sync",
        members::leave_while_syncing,
    ),
    ("leaving in batches", members::leave_in_batches),
    ("static members, join 5", |s| {
        lifetimes::static_members(s, "static-5", 5)
    }),
    ("static members, join 8", |s| {
        lifetimes::static_members(s, "static-8", 8)
    }),
    ("static members, join 9", |s| {
        lifetimes::static_members(s, "static-9", 9)
    }),
    (
        "a static member in a rebalance",
        lifetimes::static_in_rebalance,
    ),
    (
        "a static member changes the protocol",
        lifetimes::static_protocol_change,
    ),
    ("pending members", lifetimes::pending_members),
    ("sessions end", lifetimes::sessions_end),
    ("who is parked lives", lifetimes::parked_lives),
    ("commits keep a session", offsets::commits_keep_session),
    ("the time to sync ends", lifetimes::sync_time_ends),
    ("the time to join ends", lifetimes::join_time_ends),
    ("a full group", lifetimes::full_group),
    ("protocols are chosen", lifetimes::protocols),
    ("another protocol type", offsets::other_protocol_type),
    ("commits, all versions", offsets::commits),
    ("commits of members", offsets::member_commits),
    ("fetches, all versions", offsets::fetches),
    ("offsets are deleted", offsets::offset_deletes),
    ("groups are listed", offsets::lists),
    ("groups are described", offsets::describes),
    ("groups are deleted", offsets::deletes),
];
