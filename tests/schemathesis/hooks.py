"""The media types of POST /v1/events that schemathesis cannot write by itself."""

import json

import msgpack
import schemathesis
from hypothesis import strategies as st

MAILBOXES = ["#private:alice@example.org:INBOX", "#shared::Support", "#private:bob@example.org:Team/Old", "INBOX", ""]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.lists(st.fixed_dictionaries({"uid": st.integers(0, 2**32)}, optional={"flags": VALUES, "changed": VALUES}), max_size=3)
EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["MailboxChange", "MessageNew", "FlagsSet", "MessageExpunge", "AclChange", "Unheard"])},
    optional={"mailbox": st.sampled_from(MAILBOXES), "messages": MESSAGES, "uids": VALUES, "id": VALUES, "at": VALUES, "more": VALUES},
)


def lines(events):
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def packed(events):
    return b"".join(msgpack.packb(event, use_bin_type=True) for event in events)


SOUND = st.fixed_dictionaries(
    {"type": st.sampled_from(["MailboxChange", "MailboxCreate", "MailboxDelete"]), "mailbox": st.sampled_from(MAILBOXES[:3])},
    optional={"more": VALUES, "at": st.integers(0, 2**53), "actor": st.text(max_size=8)},
)
BATCHES = st.lists(SOUND, min_size=1, max_size=4) | st.lists(SOUND | EVENTS, max_size=4)
# Whole ones, and what is left of them when the connection broke.
CUT = st.tuples(BATCHES.map(packed), st.integers(0, 80)).map(lambda cut: cut[0][: cut[1]])
schemathesis.openapi.media_type("application/x-ndjson", BATCHES.map(lines) | st.binary(max_size=40))
for name in ["application/msgpack", "application/vnd.msgpack", "application/x-msgpack"]:
    schemathesis.openapi.media_type(name, BATCHES.map(packed) | CUT | st.binary(max_size=40))


@schemathesis.serializer("application/x-ndjson", "application/msgpack", "application/vnd.msgpack", "application/x-msgpack")
def as_it_is(_, value):
    """What is generated is bytes already; examples of the document are text."""
    return value.encode() if isinstance(value, str) else value
