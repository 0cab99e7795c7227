-- wrk script: one body again and again, and how many were answered with which status. Arguments: a file, and an API key.

local threads = {}
counts = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  counted = {}
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["X-API-Key"] = args[2]
  for line in io.lines(args[1]) do wrk.body = line break end
end

function response(status)
  counted[status] = (counted[status] or 0) + 1
  told = ""
  for code, number in pairs(counted) do told = told .. string.format('"%d":%d,', code, number) end
end

function done(summary, latency, requests)
  io.write(string.format('\n{"duration_us":%d,"p50_us":%.0f,"p99_us":%.0f,"statuses":{%s}}\n', summary.duration,
    latency:percentile(50), latency:percentile(99), string.sub(threads[1]:get("told") or "", 1, -2)))
end
