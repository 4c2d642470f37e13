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


async def main(url: str) -> None:
    async with mcp.Client(url) as client:
        listed = [tool.name for tool in (await client.list_tools()).tools]
        answers = {}
        for name, arguments in CALLS:
            result = await client.call_tool(name, arguments)
            assert not result.is_error, (name, result.content)
            assert json.loads(result.content[0].text) == result.structured_content, name
            answers[name] = result.structured_content
        assert sorted(answers) == sorted(listed), (sorted(answers), sorted(listed))
        assert [hit["document"] for hit in answers["search"]["results"]] == ["danube"], answers["search"]
        assert answers["fetch"]["text"] == "The Danube flows into the Black Sea."
        assert [hit["document"] for hit in answers["find_similar"]["results"]] == ["rhine"]
        assert answers["delete_documents"]["deleted"] == 1

        refused = await client.call_tool("search", {"query": "x", "limit": 1000})
        assert refused.is_error and "limit" in refused.content[0].text, refused

        prompts = [prompt.name for prompt in (await client.list_prompts()).prompts]
        assert "answer_with_citations" in prompts, prompts
        print(json.dumps({"called": list(answers)}))


asyncio.run(main(sys.argv[1]))
