"""Lists the tools of a node and calls each once through the Python SDK: every_tool.py URL"""

import asyncio
import json
import sys

import mcp

CALLS = [
    ("create_collection", {"name": "rivers", "description": "What flows"}),
    ("add_documents", {
        "collection": "rivers",
        "documents": [
            {"id": "danube", "text": "The Danube flows into the Black Sea.", "metadata": {"km": 2850}},
            {"id": "rhine", "text": "The Rhine flows into the North Sea.", "metadata": {"km": 1230}},
        ],
    }),
    ("search", {"query": "which river reaches the Black Sea", "filter": {"km": {"gte": 2000}}}),
    ("fetch", {"id": "rivers/danube"}),
    ("find_similar", {"id": "rivers/danube"}),
    ("list_collections", {}),
    ("describe_collection", {"collection": "rivers"}),
    ("list_documents", {"collection": "rivers"}),
    ("update_document", {"id": "rivers/rhine", "metadata_patch": {"country": "Netherlands"}}),
    ("delete_documents", {"ids": ["rivers/rhine"], "expected_count": 1}),
    ("get_status", {}),
    ("create_snapshot", {}),
    ("list_snapshots", {}),
    ("restore_snapshot", {"dry_run": True}),
    ("delete_collection", {"name": "rivers", "confirm": "rivers"}),
]

IN_TEXT = {"search", "fetch", "find_similar", "list_documents"}


async def main(url: str) -> None:
    async with mcp.Client(url) as client:
        listed = [tool.name for tool in (await client.list_tools()).tools]
        answers = {}
        for name, arguments in CALLS:
            result = await client.call_tool(name, arguments)
            assert not result.is_error, (name, result.content)
            answers[name] = json.loads(result.content[0].text)
            # What brings texts comes once, as text.
            expected = None if name in IN_TEXT else answers[name]
            assert result.structured_content == expected, name
        assert sorted(answers) == sorted(listed), (sorted(answers), sorted(listed))
        assert [hit["id"] for hit in answers["search"]["results"]] == ["rivers/danube#0"], answers["search"]
        assert answers["fetch"]["text"] == "The Danube flows into the Black Sea."
        assert [hit["id"] for hit in answers["find_similar"]["results"]] == ["rivers/rhine#0"]
        assert answers["delete_documents"]["deleted"] == 1

        refused = await client.call_tool("search", {"query": "x", "limit": 1000})
        assert refused.is_error and "limit" in refused.content[0].text, refused

        prompts = [prompt.name for prompt in (await client.list_prompts()).prompts]
        assert "answer_with_citations" in prompts, prompts
        print(json.dumps({"called": list(answers)}))


asyncio.run(main(sys.argv[1]))
