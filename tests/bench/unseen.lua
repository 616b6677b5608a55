-- wrk script: every request carries a kilobyte of text that no request carried before, and no digit in it, so that
-- neither a cache nor a phone number flatters or burdens anybody. Arguments: model, one fragment seed, headers as pairs.
local words = {}
for word in ([[
amber anchor apple april arrow autumn bakery balance bamboo barrel basket beacon bench berry bicycle blanket blossom
border bottle branch breeze bridge bright broken bucket butter button cabin candle canvas canyon carpet castle cedar
cellar chapel cherry circle cloud clover coffee copper corner cotton courage cradle credit crystal curtain dancer
dawn desert dinner distant doctor dragon drawer dream driver eagle early earth easter echo eleven empty engine
evening fabric falcon family farmer feather fellow fence festival fiddle finger flower forest fortune fountain
friend garden garlic gentle giant ginger glacier golden granite grape gravel guitar hammer harbor harvest hazel
helmet hidden hollow honest honey horizon hunter island ivory jacket jasmine journey jungle kettle kitchen kitten
ladder lantern lemon letter lily linen little lizard lunch magnet mango maple marble market meadow melody memory
mirror modern morning mountain museum mustard napkin narrow needle night noble north nutmeg ocean olive orange
orchard paddle palace paper parrot pasture pencil pepper piano picnic pillow planet plenty pocket polite prairie
puzzle quarry quiet rabbit ribbon river rocket saddle salmon sandal shadow silver simple sister sketch spring
]]):gmatch("%a+") do words[#words + 1] = word end

local fragments, model, thread_count = {}, "bench", 0

function setup(thread)
  thread:set("id", thread_count)
  thread_count = thread_count + 1
end

function init(args)
  model = args[1]
  math.randomseed(tonumber(args[2]) + id)
  for i = 3, #args, 2 do wrk.headers[args[i]] = args[i + 1] end
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  for i = 1, 4096 do
    local picked = {}
    for j = 1, 10 do picked[j] = words[math.random(#words)] end
    fragments[i] = table.concat(picked, " ")
  end
end

local pieces = {}
function request()
  for i = 1, 14 do pieces[i] = fragments[math.random(4096)] end
  return wrk.format(nil, nil, nil, '{"model":"' .. model .. '","messages":[{"role":"user","content":"' ..
    table.concat(pieces, ". ") .. '."}]}')
end

function done(summary, latency, requests)
  io.write(string.format('\nRESULT {"requests":%d,"seconds":%.6f,"p50_us":%d,"p99_us":%d,"failed":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout))
end
