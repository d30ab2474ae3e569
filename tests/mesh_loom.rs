//! Every order in which two or three cores can take the steps of the mesh's lock-free
//! parts, tried by loom: the ring, the ready bits and the flag of a core that sleeps.
//!
//! `cargo test --test mesh_loom` tries all with two preemptions (more: LOOM_MAX_PREEMPTIONS).
//! The three files are the mesh's and the driver's own, on loom's atomics.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use ready::Ready;
use ring::{Receiver, Sender, fixed_bytes, ring as make_ring};
use sleep::SleepFlag;

mod sync {
    pub(super) use loom::cell::UnsafeCell;
    pub(super) use loom::sync::Arc;
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
}

#[path = "../src/mesh/ready.rs"]
mod ready;
#[path = "../src/mesh/ring.rs"]
mod ring;
#[path = "../src/io/driver/sleep.rs"]
mod sleep;

const PREEMPTIONS: usize = 2;

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
    builder.check(model);
}

/// What a core shows to the others.
struct Core {
    ready: Ready,
    sleep: SleepFlag,
    bell: Bell,
}

/// The kernel's part, in which a core sleeps: a message is kept until the core looks. Who
/// is never rung exceeds loom's number of steps.
struct Bell(AtomicBool);

impl Bell {
    fn ring(&self) {
        self.0.swap(true, Ordering::AcqRel);
    }

    fn wait(&self) {
        while !self.0.swap(false, Ordering::AcqRel) {
            thread::yield_now();
        }
    }
}

impl Core {
    fn new(senders: usize) -> Arc<Core> {
        Arc::new(Core {
            ready: Ready::new(senders),
            sleep: SleepFlag::new(),
            bell: Bell(AtomicBool::new(false)),
        })
    }

    /// As `Signals::tell` and `Driver::ring_bell` do it.
    fn tell(&self, from: usize) {
        if self.ready.set(from) && self.sleep.take() {
            self.bell.ring();
        }
    }

    /// As `Driver::park` does it.
    fn park(&self) {
        self.sleep.fall_asleep();
        if !self.ready.any() {
            self.bell.wait();
        }
        self.sleep.wake_up();
    }

    /// Parks until there are bits; loom fails when nobody rings.
    fn next_bits(&self) -> u64 {
        loop {
            let bits = (0..self.ready.words()).fold(0, |bits, word| bits | self.ready.take(word));
            if bits != 0 {
                return bits;
            }
            self.park();
        }
    }
}

/// Sends as a port does: when there is no room it sleeps until it is told.
fn send_all(mut sender: Sender<u32>, count: u32, own: &Core, other: &Core, from: usize) {
    for message in 0..count {
        let mut message = message;
        while let Err(back) = sender.push(message) {
            message = back;
            if sender.wants_room() {
                own.next_bits();
            }
        }
        other.tell(from);
    }
    sender.end();
    other.tell(from);
}

/// Takes all until the sender has ended. Nothing is looked for without a bit.
fn receive_all(receiver: &mut Receiver<u32>, count: u32, own: &Core, other: &Core) {
    let mut expected = 0;
    while !receiver.has_ended() {
        own.next_bits();
        while let Some(message) = receiver.pop() {
            assert_eq!(message, expected);
            expected += 1;
            if receiver.take_room_wanted() {
                other.tell(0);
            }
        }
    }
    assert!(receiver.is_empty());
    assert_eq!(expected, count);
}

#[test]
fn a_ring_keeps_order_and_loses_nothing() {
    assert!(fixed_bytes::<u32>() > 0);
    check(|| {
        let (mut sender, mut receiver) = make_ring(2);
        let sending = thread::spawn(move || {
            for message in 0..3u32 {
                while sender.push(message).is_err() {
                    thread::yield_now();
                }
            }
        });
        for expected in 0..3 {
            loop {
                match receiver.pop() {
                    Some(message) => break assert_eq!(message, expected),
                    None => thread::yield_now(),
                }
            }
        }
        sending.join().unwrap();
        assert!(receiver.is_empty());
    });
}

#[test]
fn what_was_not_taken_is_dropped_once() {
    check(|| {
        let message = Arc::new(());
        let (mut sender, mut receiver) = make_ring(2);
        let sending = thread::spawn({
            let message = message.clone();
            move || {
                for _ in 0..3 {
                    // The third may find no room.
                    let _ = sender.push(message.clone());
                }
            }
        });
        drop(receiver.pop());
        drop(receiver);
        sending.join().unwrap();
        assert_eq!(Arc::strong_count(&message), 1);
    });
}

#[test]
fn a_receiver_that_sleeps_is_woken_for_every_message() {
    check(|| {
        let (sender_core, receiver_core) = (Core::new(1), Core::new(1));
        let (sender, mut receiver) = make_ring(2);
        let sending = thread::spawn({
            let (own, other) = (sender_core.clone(), receiver_core.clone());
            move || send_all(sender, 2, &own, &other, 0)
        });
        receive_all(&mut receiver, 2, &receiver_core, &sender_core);
        sending.join().unwrap();
    });
}

#[test]
fn a_sender_that_sleeps_is_woken_when_there_is_room() {
    check(|| {
        let (sender_core, receiver_core) = (Core::new(1), Core::new(1));
        let (sender, mut receiver) = make_ring(1);
        let sending = thread::spawn({
            let (own, other) = (sender_core.clone(), receiver_core.clone());
            move || send_all(sender, 3, &own, &other, 0)
        });
        receive_all(&mut receiver, 3, &receiver_core, &sender_core);
        sending.join().unwrap();
    });
}

#[test]
fn two_senders_share_a_word_of_bits() {
    check(|| {
        let core = Core::new(2);
        let mut receivers = Vec::new();
        let mut sending = Vec::new();
        for from in 0..2 {
            let (mut sender, receiver) = make_ring(2);
            receivers.push(receiver);
            let core = core.clone();
            sending.push(thread::spawn(move || {
                for message in 0..2u32 {
                    sender.push(message).unwrap();
                    core.tell(from);
                }
            }));
        }
        let mut taken = [0, 0];
        while taken != [2, 2] {
            let bits = core.next_bits();
            for (from, receiver) in receivers.iter_mut().enumerate() {
                if bits & 1 << from == 0 {
                    continue;
                }
                while let Some(message) = receiver.pop() {
                    assert_eq!(message, taken[from]);
                    taken[from] += 1;
                }
            }
        }
        for thread in sending {
            thread.join().unwrap();
        }
    });
}
