package gateway

default allow = false

allow { input.tool == "search"; input.user.groups[_] == "staff" }
