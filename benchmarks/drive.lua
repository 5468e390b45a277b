-- What wrk asks and how it judges the answers: keep asking for some seconds, let what is under
-- way come to its end, print one line. Arguments: path, body, seconds, clients, the word that
-- each token is, how often it must occur, what must be near the end of an answer, and the key.

local ffi = require("ffi")
ffi.cdef [[
typedef struct { long s; long ns; } moment;
int clock_gettime(int clock, moment *now);
]]
local MONOTONIC = 1
local LONGER_THAN_ANY_RUN_MS = 3600000

local asking, word, expected, ending
local clients, seconds, began, ended, ready = 0, 0, nil, 0, 0
local asked, answered, good, bad = 0, 0, 0, ""

local function now()
    local moment = ffi.new("moment")
    ffi.C.clock_gettime(MONOTONIC, moment)
    return tonumber(moment.s) + tonumber(moment.ns) / 1e9
end

local function count(text)
    local found, at = 0, 1
    while true do
        local _, last = string.find(text, word, at, true)
        if not last then
            return found
        end
        found, at = found + 1, last + 1
    end
end

function init(args)
    local path, body = args[1], args[2]
    seconds, clients, word = tonumber(args[3]), tonumber(args[4]), args[5]
    expected, ending = tonumber(args[6]), args[7]
    local headers = { ["Content-Type"] = "application/json" }
    if args[8] ~= "" then
        headers["Authorization"] = "Bearer " .. args[8]
    end
    asking = wrk.format("POST", path, headers, body)
end

-- Each connection asks this before its next request. The last one to hear that the time is over
-- ends the run, so that no answer is cut.
function delay()
    if not began then
        began, asked = now(), 0 -- wrk asks for a request before it begins, to look at it
    end
    if now() - began < seconds then
        return 0
    end
    ready = ready + 1
    if ready == clients then
        print(string.format("drove %d %d %d %.6f %s", asked, answered, good, ended - began, bad))
        io.stdout:flush()
        os.exit(0)
    end
    return LONGER_THAN_ANY_RUN_MS
end

function request()
    asked = asked + 1
    return asking
end

function response(status, _, body)
    ended, answered = now(), answered + 1
    if status == 200 and count(body) == expected and string.find(body, ending, -200, true) then
        good = good + 1
    elseif bad == "" then
        bad = string.format("%d %s", status, string.sub(body, -200):gsub("%s+", " "))
    end
end
