-- wrk script: posts the bodies of a file (one JSON document a line) in turn, and prints what came of it as one line of JSON.
-- With one body the request is made once; with several, each is made before the start and only chosen while measuring.

function init(args)
  local bodies = {}
  for line in io.lines(args[1]) do bodies[#bodies + 1] = line end
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.body = bodies[1]
  if #bodies > 1 then
    local requests, place = {}, 0
    for number, body in ipairs(bodies) do requests[number] = wrk.format(nil, nil, nil, body) end
    function request()
      place = place % #requests + 1
      return requests[place]
    end
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"duration_us":%d,"answer_bytes":%d,"p50_us":%.0f,"p99_us":%.0f,"errors":%d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
