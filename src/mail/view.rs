//! The view: the messages that an IMAP client believes the selected mailbox holds.
