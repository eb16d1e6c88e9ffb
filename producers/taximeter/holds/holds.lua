-- Place, keep, record and release one hold of a workspace.
--
-- KEYS, in one cluster slot:
--   taximeter:holds:{<workspace>}      hash: hold id -> microdollars held; the field with the empty name has their sum.
--   taximeter:holds:due:{<workspace>}  sorted set: hold id -> when it expires, milliseconds since 1970 by this server's clock.
-- Read, and not declared because a tool may not write them:
--   taximeter:balance:{<workspace>}    see flags.lua of the worker
--   taximeter:flags:ready              see marks.py of the worker: "run", "holds_from", "hold_ms_max" and "minimum" in it
--
-- ARGV[1]  hold, keep (renew, or change the amount), record (its usage is in a spool), release, look
-- ARGV[2]  the hold's id
-- ARGV[3]  microdollars
-- ARGV[4]  milliseconds to live
-- ARGV[5]  the run id of this server, as the caller learned it on this connection
-- ARGV[6]  hold: "cap" grants what there is where that is less; "dry" places nothing. keep, release: "unrecord", since its
--          usage is in no spool after all. record: the id of the slice that the amount of a hold that is not there is moved from.
--          Else empty
--
-- Returns one line: a letter, then available, held by all holds, held by this one, milliseconds it lives,
-- the milliseconds until holds are granted again.
--   G  done      S  short: the balance does not afford it, and nothing changed
--   W  wait: holds may have been lost, and none is granted until every lost one would have expired
--   C  cold: nothing on this server is to be trusted until a worker has looked at it
--
-- Amounts are whole microdollars: the balance rounded down, the minimum up. Lua's numbers are exact to 9 * 10^15, so what
-- is available is capped at 8 * 10^15, which is 8 billion USD.
local call = redis.call
local holds, due = KEYS[1], KEYS[2]
local action, id, amount, lifetime, run, option = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local KEY_MS, RECORDED_MS, LIVE_MS_MAX, CAP_USD = 691200000, 604800000, 3600000, 8e9

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function digits(number)
  return string.format('%.0f', number)
end

-- Whole USD and the microdollars beyond them, both with the sign; nil for what no writer of ours has left.
local function parts(text, up)
  local sign, whole, fraction = string.match(text or '', '^(%-?)(%d+)%.?(%d*)$')
  if not whole then
    return nil
  end
  local usd, micro = tonumber(whole), tonumber(string.sub(fraction .. '000000', 1, 6))
  local more = string.find(fraction, '[1-9]', 7) ~= nil
  if more and (sign == '-') ~= up then
    micro = micro + 1
  end
  if sign == '-' then
    return -usd, -micro
  end
  return usd, micro
end

local stored = call('HMGET', holds, '', id)
local total, own = tonumber(stored[1] or 0), stored[2] and tonumber(stored[2])

-- Each call takes out what has expired, so what is summed is open.
local expired = call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, 1000)
while #expired > 0 do
  for _, held in ipairs(call('HMGET', holds, unpack(expired))) do
    total = total - tonumber(held or 0)
  end
  call('HDEL', holds, unpack(expired))
  call('ZREM', due, unpack(expired))
  call('HSET', holds, '', digits(total))
  own = tonumber(call('HGET', holds, id) or '')
  expired = call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, 1000)
end

local mark = call('GET', 'taximeter:flags:ready')
local from = mark and tonumber(string.match(mark, '"holds_from":(%d+)') or '')
local longest = mark and tonumber(string.match(mark, '"hold_ms_max":(%d+)') or '')

-- nil while flags and holds of this server are not to be trusted: it may have been restarted a moment ago.
local available
if from and longest and string.find(mark, '"run":"' .. run .. '"', 1, true) then
  local account = call('HMGET', 'taximeter:balance:' .. string.sub(holds, #'taximeter:holds:' + 1), 'balance', 'minimum')
  local usd, micro = parts(account[1] or '0', false)
  local usd_min, micro_min = parts(account[2] or string.match(mark, '"minimum":"([^"]*)"'), true)
  if usd and usd_min then
    available = math.max(-CAP_USD, math.min(CAP_USD, usd - usd_min)) * 1e6 + micro - micro_min - total
  end
end
local complete = available and now >= from

local function answer(letter, live)
  local wait = from and math.max(0, from - now) or 0
  local numbers = {digits(available or 0), digits(total), digits(own or 0), digits(live or 0), digits(wait)}
  return redis.status_reply(letter .. ' ' .. table.concat(numbers, ' '))
end

local function place(held, live)
  local change = held - (own or 0)
  total, own, available = total + change, held, available and available - change
  call('HSET', holds, id, digits(held), '', digits(total))
  call('ZADD', due, digits(now + live), id)
  call('PEXPIRE', holds, KEY_MS)
  call('PEXPIRE', due, KEY_MS)
  return answer('G', live)
end

lifetime = longest and lifetime and math.min(lifetime, longest) or lifetime
if action == 'hold' then
  if own then -- the same key again
    return answer('G', (call('ZSCORE', due, id) or now) - now)
  elseif not complete then
    return answer(available and 'W' or 'C')
  elseif amount > available and (option ~= 'cap' or available <= 0) then
    return answer('S')
  elseif option == 'dry' then
    return answer('G', lifetime)
  end
  return place(math.min(amount, available), lifetime)
elseif action == 'keep' then
  local change = amount - (own or 0)
  if own and change > 0 and not complete then
    return answer(available and 'W' or 'C')
  elseif complete and change > 0 and change > available then
    return answer('S')
  end
  -- What is missing while holds may have been lost is put back without asking.
  local live = own and option ~= 'unrecord' and (call('ZSCORE', due, id) or now) - now or 0
  return place(amount, math.max(live, lifetime))
elseif action == 'record' and (own or amount > 0) then
  local slice = not own and option ~= '' and tonumber(call('HGET', holds, option) or '')
  if slice then
    local moved = math.min(slice, amount)
    total, available = total - moved, available and available + moved
    call('HSET', holds, option, digits(slice - moved))
  end
  return place(own or amount, RECORDED_MS)
elseif action == 'release' and own and (option == 'unrecord' or (call('ZSCORE', due, id) or now) - now <= LIVE_MS_MAX) then
  -- One that lives for longer waits for the booking of its usage, which settles it.
  total, available = total - own, available and available + own
  call('HDEL', holds, id)
  call('ZREM', due, id)
  call('HSET', holds, '', digits(total))
  own = nil
end
if call('ZCARD', due) == 0 then
  call('DEL', holds, due)
end
return answer(complete and 'G' or available and 'W' or 'C')
