//! What settings are for.

/// What the settings are loaded for: not every command needs every setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A gateway node.
    Serve,
    /// Everything in one process: local registry and queue are allowed, keys to tokens are made up.
    Dev,
    /// Publishing from an origin: registry and queue, no keys to tokens.
    Publish,
    /// The agent on a mail server: as publishing, and its own settings.
    Agent,
    /// Making or reading tokens: keys only.
    Token,
}
