-- wrk script. Arguments: a method, a file, an API key and, where users think, for how many milliseconds on average. GET asks for the paths of the file (one a line) in turn, POST sends its
-- bodies (one JSON document a line) in turn; what came of it is printed as one line of JSON.
-- With one line the request is made once; with several, each is made before the start and only chosen while measuring.

function init(args)
  if args[4] then
    -- Evenly from none to twice as long: users that all think equally long would come together.
    local longest = 2 * tonumber(args[4])
    function delay() return math.random(0, longest) end
  end
  local lines = {}
  for line in io.lines(args[2]) do lines[#lines + 1] = line end
  wrk.method = args[1]
  wrk.headers["X-API-Key"] = args[3]
  local part = "path"
  if wrk.method == "POST" then
    part = "body"
    wrk.headers["Content-Type"] = "application/json"
  end
  wrk[part] = lines[1]
  if #lines > 1 then
    local requests, place = {}, 0
    for number, line in ipairs(lines) do
      wrk[part] = line
      requests[number] = wrk.format()
    end
    function request()
      place = place % #requests + 1
      return requests[place]
    end
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"duration_us":%d,"answer_bytes":%d,"p50_us":%.0f,"p95_us":%.0f,"p99_us":%.0f,"errors":%d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
