//! Messages that came and are not acknowledged yet.

use std::collections::VecDeque;

/// A message that is to be acknowledged once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub(super) connection: u64,
    pub(super) packet: u16,
}

/// Numbers of messages and whether each may be acknowledged, in the order in which they came: so they are acknowledged
/// (MQTT 5, 4.6). The protocol's numbers bound them, whatever a broker sends.
#[derive(Debug, Default)]
pub(super) struct Receipts(VecDeque<(u16, bool)>);

impl Receipts {
    pub(super) fn came(&mut self, packet: u16) {
        self.0.push_back((packet, false));
    }

    pub(super) fn done(&mut self, packet: u16) {
        // What is still being asked came last.
        if let Some(entry) = self.0.iter_mut().rev().find(|entry| **entry == (packet, false)) {
            entry.1 = true;
        }
    }

    /// Acknowledges what is due by `ack`, until that says no.
    pub(super) fn settle(&mut self, ack: impl Fn(u16) -> bool) {
        while self.0.front().is_some_and(|(packet, is_done)| *is_done && ack(*packet)) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn messages_are_acknowledged_in_the_order_in_which_they_came() {
        let mut receipts = Receipts::default();
        (1..=4).for_each(|packet| receipts.came(packet));
        let acked = RefCell::new(Vec::new());
        let ack = |packet: u16| {
            acked.borrow_mut().push(packet);
            true
        };
        receipts.done(2);
        receipts.settle(ack);
        assert!(acked.borrow().is_empty(), "1 is still being asked");
        receipts.done(1);
        receipts.settle(|_| false);
        receipts.done(4);
        receipts.done(9);
        receipts.settle(ack);
        assert_eq!(*acked.borrow(), [1, 2], "what the library had no room for comes with the next ones");
        receipts.done(3);
        receipts.settle(ack);
        assert_eq!(*acked.borrow(), [1, 2, 3, 4]);
    }
}
