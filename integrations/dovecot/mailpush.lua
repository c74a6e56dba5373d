-- Tells mailpush's agent of every change in a Dovecot mailbox: one POST for each transaction.
--
-- Runs inside Dovecot's IMAP and LMTP processes (push_notification with its Lua driver), which wait for the answer:
-- so everything here is bounded by time, nothing is tried twice, and no fault of it reaches the mail command.
--
-- Plugin settings (README.md beside this file explains them):
--   mailpush_url    the agent, such as http://127.0.0.1:8081/v1/ingest/dovecot
--   mailpush_token  agent.token, where it is set
-- and, for users whose namespaces are others than agent.dovecot says (once one of them is set, all of them count):
--   mailpush_personal_prefix  what their own mailboxes begin with, such as INBOX. (default: nothing)
--   mailpush_shared_prefix    what other users' mailboxes begin with, such as shared/ (default: there are none)
--   mailpush_public_prefix    what mailboxes of nobody begin with, such as Public/ (default: there are none)
--   mailpush_alias_prefix     what hidden other names (alias_for) of their own mailboxes begin with (default: there are none)
--   mailpush_separator        the hierarchy separator (default /)
-- Several namespaces of a kind: mailpush_public_prefix2, mailpush_public_prefix3 and so on.

-- Milliseconds. Together with the agent being away, the longest that a mail command is held up.
local CONNECT_TIMEOUT = 100
local REQUEST_TIMEOUT = 300
-- Messages in one POST. A transaction with more is told in several.
local CHUNK = 2000
-- What is passed on of a text from a mail's header, in bytes.
local LONGEST_TEXT = 2000

local client

local function json_text(s)
  s = tostring(s)
  if not utf8.len(s) then
    -- A byte that is no UTF-8 would make the whole document unreadable.
    s = s:gsub('[\128-\255]', '?')
  end
  return '"' .. s:gsub('[%c"\\]', function(c) return string.format('\\u%04x', c:byte()) end) .. '"'
end

local function json(v)
  local kind = math.type(v)
  if kind == 'integer' then return string.format('%d', v) end
  if kind == 'float' then
    if v == math.floor(v) and math.abs(v) < 2 ^ 53 then return string.format('%d', math.floor(v)) end
    return 'null'
  end
  if type(v) == 'nil' then return 'null' end
  if type(v) == 'boolean' then return tostring(v) end
  if type(v) ~= 'table' then return json_text(v) end
  local out = {}
  if #v > 0 or next(v) == nil then
    for i = 1, #v do out[i] = json(v[i]) end
    return '[' .. table.concat(out, ',') .. ']'
  end
  for key, value in pairs(v) do out[#out + 1] = json_text(key) .. ':' .. json(value) end
  return '{' .. table.concat(out, ',') .. '}'
end

local function cut(s)
  if s == nil or #s <= LONGEST_TEXT then return s end
  -- Not within a character.
  local last = LONGEST_TEXT
  while last > 0 and (s:byte(last + 1) & 0xc0) == 0x80 do last = last - 1 end
  return s:sub(1, last)
end

function script_init()
  client = dovecot.http.client{
    request_timeout_msecs = REQUEST_TIMEOUT,
    request_absolute_timeout_msecs = REQUEST_TIMEOUT,
    connect_timeout_msecs = CONNECT_TIMEOUT,
    max_attempts = 1,
    max_connect_attempts = 1,
    no_auto_retry = true,
    no_auto_redirect = true,
  }
  return 0
end

function script_deinit() end

local function post(ctx, document)
  local request = client:request{ url = ctx.url, method = 'POST' }
  request:add_header('Content-Type', 'application/json')
  if ctx.token then request:add_header('Authorization', 'Bearer ' .. ctx.token) end
  request:set_payload(document)
  local response = request:submit()
  if response:status() // 100 ~= 2 then
    dovecot.i_error(string.format('mailpush: %s of %s was not told: %s %s', ctx.what, ctx.username,
      tostring(response:status()), tostring(response:reason())))
  end
end

local function setting(user, name)
  local value = user:plugin_getenv(name)
  if value == '' then return nil end
  return value
end

-- The user's namespaces, where plugin settings name them. Which mailbox a name means is the agent's business.
local function namespaces(user)
  -- An empty prefix is one where users' own mailboxes are, and elsewhere means that there is none.
  local function all(name, own)
    local found, value = {}, user:plugin_getenv(name)
    while value and (own or value ~= '') do
      found[#found + 1] = value
      value = user:plugin_getenv(name .. #found + 1)
    end
    return found
  end
  local told = {
    personal = all('mailpush_personal_prefix', true),
    shared = all('mailpush_shared_prefix', false),
    public = all('mailpush_public_prefix', false),
    alias = all('mailpush_alias_prefix', true),
    separator = setting(user, 'mailpush_separator'),
  }
  if #told.personal + #told.shared + #told.public + #told.alias == 0 and not told.separator then return nil end
  return told
end

function dovecot_lua_notify_begin_txn(user)
  return {
    user = user,
    username = user.username,
    url = setting(user, 'mailpush_url'),
    token = setting(user, 'mailpush_token'),
    namespaces = namespaces(user),
    entries = {},
    -- Entries that take more UIDs, by what their messages have in common.
    groups = {},
    messages = 0,
  }
end

local function entry(ctx, event)
  local e = { name = event.name, mailbox = event.mailbox, mailbox_old = event.mailbox_old, uid_validity = event.uid_validity }
  ctx.entries[#ctx.entries + 1] = e
  return e
end

local function mailbox_event(ctx, event) entry(ctx, event) end

-- A new message: its list of flags is the whole one.
local function new_message(ctx, event)
  local e = entry(ctx, event)
  e.uid = event.uid
  e.flags, e.keywords = event.flags, event.keywords
  e.from_address, e.from_display_name = cut(event.from_address), cut(event.from_display_name)
  e.subject, e.message_id = cut(event.subject), cut(event.message_id)
  ctx.messages = ctx.messages + 1
end

-- Messages to which the same happened share an entry: a mailbox of 100,000 that is emptied is one list of UIDs.
local function old_message(ctx, event)
  local common = { event.name, event.mailbox, tostring(event.uid_validity) }
  for _, flags in ipairs{ event.flags or {}, event.keywords or {} } do
    local sorted = table.move(flags, 1, #flags, 1, {})
    table.sort(sorted)
    common[#common + 1] = table.concat(sorted, ' ')
  end
  local key = table.concat(common, '\n')
  local e = ctx.groups[key]
  if not e or #e.uids >= CHUNK * 10 then
    e = entry(ctx, event)
    e.uids = {}
    e.flags, e.keywords = event.flags, event.keywords
    ctx.groups[key] = e
  end
  e.uids[#e.uids + 1] = event.uid
  ctx.messages = ctx.messages + 1
end

-- Dovecot tells only of what there is a function for. MessageRead and MessageTrash come beside a FlagsSet.
dovecot_lua_notify_event_message_new = new_message
dovecot_lua_notify_event_message_append = new_message
dovecot_lua_notify_event_message_expunge = old_message
dovecot_lua_notify_event_flags_set = old_message
dovecot_lua_notify_event_flags_clear = old_message
dovecot_lua_notify_event_mailbox_create = mailbox_event
dovecot_lua_notify_event_mailbox_delete = mailbox_event
dovecot_lua_notify_event_mailbox_rename = mailbox_event
dovecot_lua_notify_event_mailbox_subscribe = mailbox_event
dovecot_lua_notify_event_mailbox_unsubscribe = mailbox_event

-- The mailbox after the transaction. Somebody else's next change may be in it already.
local function status(ctx, name)
  local storage = dovecot.storage
  local box = ctx.user:mailbox(name)
  box:open()
  box:sync()
  local s = box:status(storage.STATUS_MESSAGES | storage.STATUS_UIDNEXT | storage.STATUS_UIDVALIDITY |
    storage.STATUS_HIGHESTMODSEQ | storage.STATUS_UNSEEN)
  box:free()
  return { messages = s.messages, uidnext = s.uidnext, uidvalidity = s.uidvalidity, unseen = s.unseen,
    highestmodseq = s.highest_modseq }
end

local function tell(ctx, ok)
  local first = ctx.entries[1]
  ctx.what = string.format('%s in %s', first.name, first.mailbox)
  local after
  if ctx.messages > 0 then
    -- The mailbox may be gone already: then there is no status to tell.
    local had, s = pcall(status, ctx, first.mailbox)
    if had then after = s end
  end
  local at, count = 1, #ctx.entries
  while at <= count do
    local last = math.min(at + CHUNK - 1, count)
    post(ctx, json{ user = ctx.username, success = ok, namespaces = ctx.namespaces,
      events = table.move(ctx.entries, at, last, 1, {}), status = last == count and after or nil })
    at = last + 1
  end
end

function dovecot_lua_notify_end_txn(ctx, ok)
  if not ok or #ctx.entries == 0 then return end
  if not ctx.url then
    dovecot.i_error('mailpush: the plugin setting mailpush_url is not set')
    return
  end
  local told, fault = pcall(tell, ctx, ok)
  if not told then dovecot.i_error('mailpush: ' .. tostring(fault)) end
end
