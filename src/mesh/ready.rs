//! Whose messages a core has to look for: a bit for each sender, so that an idle turn costs
//! one load for 64 cores.
//!
//! ```text
//! sender    push  fence  bit unset? → set it (only then: fence, sleeping? → ring its bell)
//! receiver  take the bits  fence  look into the rings
//! falls asleep:  say so  fence  any bit set? → stay awake
//! ```
//! Used by `port` and `replies`; the last line is `io::driver::bell`'s.
//!
//! Why nothing is lost: a sender that finds its bit set does nothing more, for whoever set
//! it has seen to it that the receiver is or will be awake, and the receiver looks into
//! all rings of that sender after it has taken the bit, so it finds this message too: of
//! the two fences (ours between push and look, its between take and look) one comes first.

use super::sync::{AtomicU64, Ordering, fence};

const BITS: usize = u64::BITS as usize;
const LINE_WORDS: usize = 8;

/// The bits of one receiving core, alone on their cache lines.
pub(super) struct Ready {
    lines: Box<[Line]>,
    words: usize,
}

#[repr(align(64))]
struct Line([AtomicU64; LINE_WORDS]);

impl Ready {
    pub(super) fn new(senders: usize) -> Ready {
        let words = senders.div_ceil(BITS);
        let line = || Line(std::array::from_fn(|_| AtomicU64::new(0)));
        Ready {
            lines: (0..words.div_ceil(LINE_WORDS)).map(|_| line()).collect(),
            words,
        }
    }

    pub(super) fn words(&self) -> usize {
        self.words
    }

    fn word(&self, word: usize) -> &AtomicU64 {
        &self.lines[word / LINE_WORDS].0[word % LINE_WORDS]
    }

    /// The sender has pushed something. Whether the receiver must be woken if it sleeps;
    /// the look at that needs a fence before it.
    pub(super) fn set(&self, sender: usize) -> bool {
        let (word, bit) = (self.word(sender / BITS), 1 << (sender % BITS));
        // Pairs with the fence in `take`.
        fence(Ordering::SeqCst);
        if word.load(Ordering::Relaxed) & bit != 0 {
            return false;
        }
        word.fetch_or(bit, Ordering::Release);
        true
    }

    /// Whether any sender has pushed something.
    pub(super) fn any(&self) -> bool {
        (0..self.words).any(|word| self.word(word).load(Ordering::Relaxed) != 0)
    }

    /// Takes the bits of 64 senders, whose rings must all be looked into after this.
    pub(super) fn take(&self, word: usize) -> u64 {
        let word = self.word(word);
        if word.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let bits = word.swap(0, Ordering::Acquire);
        // Pairs with the fence in `set`: either the sender sees that its bit is unset, or
        // we see what it has pushed.
        fence(Ordering::SeqCst);
        bits
    }
}
