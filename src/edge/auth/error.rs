//! Why a token is refused, and why keys cannot be had.

use std::path::PathBuf;

/// Why a token is refused, in words for its bearer: nothing about keys or other users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("the token is longer than {} bytes", super::MAX_TOKEN_BYTES)]
    TooLong,
    /// Not a signed JWT in compact form (RFC 7519 3, RFC 7515 7.1).
    #[error("the token is malformed")]
    Malformed,
    /// The header demands an extension (`crit`, RFC 7515 4.1.11) or an encoding that is not
    /// understood.
    #[error("the token needs an extension that is not supported")]
    UnsupportedHeader,
    /// Not in the list, `none`, or not of the key's kind (RFC 8725 3.1).
    #[error("the token's algorithm is not allowed")]
    AlgorithmNotAllowed,
    /// The token names a key that is not in the set, also not in one fetched after the token was
    /// first presented.
    #[error("the token's key is not known")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    BadSignature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token is of another issuer")]
    WrongIssuer,
    #[error("the token is for another audience")]
    WrongAudience,
    #[error("the token lacks the claim {0:?}")]
    MissingClaim(&'static str),
    #[error("the token's claim {0:?} is not valid")]
    InvalidClaim(&'static str),
    /// No key set could be fetched since the start: not the client's fault, so it may try again.
    #[error("tokens cannot be checked at the moment")]
    KeysUnavailable,
    /// The keys at hand do not verify the token, and no key set has been fetched since it was first
    /// presented: it may be signed with a key that is about to be fetched.
    #[error("the token's key is not known yet: come back with it in a moment")]
    KeyPending,
}

impl AuthError {
    /// One of each kind.
    #[allow(dead_code, reason = "for tests")]
    pub const ALL: &[Self] = &[
        Self::TooLong,
        Self::Malformed,
        Self::UnsupportedHeader,
        Self::AlgorithmNotAllowed,
        Self::UnknownKey,
        Self::BadSignature,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongIssuer,
        Self::WrongAudience,
        Self::MissingClaim("exp"),
        Self::InvalidClaim("exp"),
        Self::KeysUnavailable,
        Self::KeyPending,
    ];

    /// A stable name for metrics and answers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::Malformed => "token_malformed",
            Self::UnsupportedHeader => "token_header_unsupported",
            Self::AlgorithmNotAllowed => "token_algorithm_not_allowed",
            Self::UnknownKey => "token_key_unknown",
            Self::BadSignature => "token_bad_signature",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::WrongIssuer => "token_wrong_issuer",
            Self::WrongAudience => "token_wrong_audience",
            Self::MissingClaim(_) => "token_claim_missing",
            Self::InvalidClaim(_) => "token_claim_invalid",
            Self::KeysUnavailable => "token_keys_unavailable",
            Self::KeyPending => "token_key_pending",
        }
    }

    /// Whether the same token may be good later: the fault is ours (503), not the token's (401).
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::KeysUnavailable | Self::KeyPending)
    }
}

/// Why keys cannot be had. Names files and URLs, never what is in them.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("there is no key: set one of auth.secret, auth.public_key_file, auth.jwks_file, auth.jwks_url")]
    NoSource,
    #[error("auth.algorithms allows nothing that fits the key")]
    NoFittingAlgorithm,
    #[error("cannot read {}: {reason}", path.display())]
    NotReadable { path: PathBuf, reason: String },
    #[error("{} {problem}", path.display())]
    InvalidFile { path: PathBuf, problem: String },
    #[error("the key set cannot be fetched: {0}")]
    NotFetched(String),
    #[error("the fetched key set {0}")]
    InvalidSet(String),
}
