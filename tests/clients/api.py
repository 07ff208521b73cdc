"""What the inbox's API says of itself, held against what it gives: `api.py URL`, with the token in `TOKEN`.

Prints how many answers were looked at.
"""

import json
import os
import sys
import urllib.request

import jsonschema
from openapi_spec_validator import validate

url = sys.argv[1]


def get(path, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(f"{url}{path}", headers=headers)) as response:
        assert response.headers["content-type"] == "application/json", response.headers
        return json.load(response)


document = get("/api/v1/openapi.json")
validate(document)
token = os.environ["TOKEN"]
looked_at = 0


def check(path, template=None):
    global looked_at
    told = document["paths"][template or path]["get"]["responses"]["200"]
    schema = {"$ref": told["content"]["application/json"]["schema"]["$ref"], "components": document["components"]}
    given = get(path, token)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(given)
    looked_at += 1
    return given


for path in ["/healthz", "/readyz", "/api/v1/pending", "/api/v1/servers", "/api/v1/reviews", "/api/v1/verify"]:
    check(path)
states, entries = set(), set()
for line in check("/api/v1/calls")["calls"]:
    call = check(f"/api/v1/calls/{line['call']}", "/api/v1/calls/{id}")
    states.add(call["call"]["state"])
    for record in call["records"]:
        entries.update([record["entry"]] if isinstance(record["entry"], str) else record["entry"])
print(json.dumps({"looked_at": looked_at, "states": sorted(states), "entries": sorted(entries)}))
