-- Posts the lines of a file, one after the other and again. wrk -s post.lua URL -- BODIES [NAME VALUE]...
-- "@@" in a line becomes a number that no other request has; NAME and VALUE are headers.
local bodies, counter, failed = {}, 0, 0

function init(arguments)
  for line in io.lines(arguments[1]) do bodies[#bodies + 1] = line end
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  for place = 2, #arguments - 1, 2 do wrk.headers[arguments[place]] = arguments[place + 1] end
end

function request()
  counter = counter + 1
  return wrk.format(nil, nil, nil, (bodies[counter % #bodies + 1]:gsub("@@", counter)))
end

function response(status, headers, body)
  if status ~= 200 then
    failed = failed + 1
    if failed == 1 then io.stderr:write("first failure: " .. status .. " " .. body:sub(1, 300) .. "\n") end
  end
end
