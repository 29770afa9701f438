-- The answers of HAProxy as an upstream, and its record of what it saw.

local FIELDS = {
  'host', 'authorization', 'x-leastgate-subject', 'x-forwarded-for', 'expect', 'te', 'connection', 'upgrade',
  'content-length', 'transfer-encoding',
}

local directory = os.getenv('PEER_DIR')
local block = {}
for at = 0, 250 do block[at + 1] = string.char(at) end
block = string.rep(table.concat(block), 64)

core.register_action('seen', { 'http-req' }, function(txn)
  local headers = txn.http:req_get_headers()
  local function given(name) return headers[name] and headers[name][0] or '-' end
  -- Over HTTP/2 the target comes in absolute form.
  local target = txn.sf:pathq()
  local columns = { given('x-cell'), txn.sf:method(), target, txn.c:url_dec(txn.sf:path()), tostring(txn.sf:src_port()) }
  for _, name in ipairs(FIELDS) do columns[#columns + 1] = given(name) end
  columns[#columns + 1] = '-'
  local log = io.open(directory .. '/seen.log', 'a')
  log:write(table.concat(columns, '\t') .. '\n')
  log:close()
end)

local function sum(applet)
  local length, a, b = 0, 1, 0
  while true do
    local part = applet:receive(16384)
    if part == nil or part == '' then break end
    length = length + #part
    for at = 1, #part do
      a = a + part:byte(at)
      b = b + a
    end
    a, b = a % 65521, b % 65521
  end
  return string.format('%d %d', length, b * 65536 + a)
end

local function say(applet, text)
  applet:set_status(200)
  applet:add_header('content-type', 'text/plain')
  applet:add_header('content-length', tostring(#text))
  applet:start_response()
  applet:send(text)
end

local function start(applet, kind)
  applet:set_status(200)
  applet:add_header('content-type', kind)
  applet:start_response()
end

local function big(applet)
  local left = 10 * 1024 * 1024
  applet:set_status(200)
  applet:add_header('content-length', tostring(left))
  applet:start_response()
  while left > 0 do
    local part = left < #block and block:sub(1, left) or block
    applet:send(part)
    left = left - #part
  end
end

core.register_service('serve', 'http', function(applet)
  local path = applet.path
  if path == '/v1/sum' then
    say(applet, sum(applet))
  elseif path == '/v1/big' then
    big(applet)
  elseif path == '/v1/chunked' then
    start(applet, 'text/plain')
    for _, part in ipairs({ 'one ', 'two ', 'three' }) do applet:send(part) end
  elseif path == '/v1/stream' then
    start(applet, 'text/event-stream')
    for number = 0, 4 do
      core.msleep(200)
      applet:send(string.format('data: %d\n\n', number))
    end
  else
    say(applet, 'hello')
  end
end)
