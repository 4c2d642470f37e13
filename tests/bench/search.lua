-- Calls the tool `search` over MCP. wrk -s search.lua URL -- QUERIES ERA CACHED [PAUSE]
-- QUERIES: a file with a question a line. ERA: modern (2026-07-28) or legacy (2025-11-25).
-- CACHED: "cached" asks one question again and again, "uncached" never the same twice (a number makes each unique).
-- PAUSE: milliseconds that a connection waits on average before it asks, so that many connections ask at a rate; refusals are
-- then expected.
local queries, era, unique, counter, thread_count = {}, "modern", true, 0, 0

function setup(thread)
  thread:set("id", thread_count)
  thread_count = thread_count + 1
end

function init(arguments)
  for line in io.lines(arguments[1]) do queries[#queries + 1] = line:gsub('[\\"]', " ") end
  era, unique = arguments[2] or "modern", arguments[3] ~= "cached"
  counter = id * 1000003
  local pause = tonumber(arguments[4])
  if pause then
    math.randomseed(id)
    delay = function() return math.random(0, 2 * pause) end
    response = nil
  end
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Accept"] = "application/json, text/event-stream"
  if era == "modern" then
    wrk.headers["MCP-Protocol-Version"] = "2026-07-28"
    wrk.headers["Mcp-Method"] = "tools/call"
    wrk.headers["Mcp-Name"] = "search"
  else
    wrk.headers["MCP-Protocol-Version"] = "2025-11-25"
  end
end

function request()
  counter = counter + 1
  local query = queries[1]
  -- A number no document holds: the words decide, and no two requests are the same.
  if unique then query = queries[counter % #queries + 1] .. " " .. counter end
  local meta = ""
  if era == "modern" then
    meta = ',"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",' ..
      '"io.modelcontextprotocol/clientInfo":{"name":"wrk","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}'
  end
  local body = '{"jsonrpc":"2.0","id":' .. counter .. ',"method":"tools/call","params":{"name":"search",' ..
    '"arguments":{"query":"' .. query .. '"}' .. meta .. '}}'
  return wrk.format(nil, nil, nil, body)
end

local failed = 0
function response(status, headers, body)
  -- The answer is JSON in a block of text, so that its quotation marks are escaped.
  if status ~= 200 or not body:find('\\"results\\"', 1, true) then
    failed = failed + 1
    if failed == 1 then io.stderr:write("first failure: " .. status .. " " .. body:sub(1, 300) .. "\n") end
  end
end
