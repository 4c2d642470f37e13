// Lists the tools of a node and calls each once through the TypeScript SDK, which checks every answer against the
// schema that the tool promises: every_tool.mjs URL, or every_tool.mjs PROGRAM DATA_DIR for stdio.

import assert from 'node:assert/strict';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const calls = [
  ['create_collection', { name: 'rivers', description: 'What flows' }],
  ['add_documents', {
    collection: 'rivers',
    documents: [
      { id: 'danube', text: 'The Danube flows into the Black Sea.', metadata: { km: 2850 } },
      { id: 'rhine', text: 'The Rhine flows into the North Sea.', metadata: { km: 1230 } },
    ],
  }],
  ['search', { query: 'which river reaches the Black Sea', filter: { km: { gte: 2000 } } }],
  ['fetch', { id: 'rivers/danube' }],
  ['find_similar', { id: 'rivers/danube' }],
  ['list_collections', {}],
  ['describe_collection', { collection: 'rivers' }],
  ['list_documents', { collection: 'rivers' }],
  ['update_document', { id: 'rivers/rhine', metadata_patch: { country: 'Netherlands' } }],
  ['delete_documents', { ids: ['rivers/rhine'], expected_count: 1 }],
  ['get_status', {}],
  ['create_snapshot', {}],
  ['list_snapshots', {}],
  ['restore_snapshot', { dry_run: true }],
  ['delete_collection', { name: 'rivers', confirm: 'rivers' }],
];

const [target, dataDir] = process.argv.slice(2);
const transport = dataDir === undefined
  ? new StreamableHTTPClientTransport(new URL(target))
  : new StdioClientTransport({ command: target, args: ['mcp', '--data-dir', dataDir], stderr: 'inherit' });
const client = new Client({ name: 'it', version: '1' });
await client.connect(transport);

const listed = (await client.listTools()).tools.map((tool) => tool.name);
const answers = {};
for (const [name, args] of calls) {
  const result = await client.callTool({ name, arguments: args });
  assert.ok(!result.isError, `${name}: ${JSON.stringify(result.content)}`);
  answers[name] = JSON.parse(result.content[0].text);
  // What brings texts comes once, as text.
  const inText = ['search', 'fetch', 'find_similar', 'list_documents'].includes(name);
  assert.deepEqual(result.structuredContent, inText ? undefined : answers[name], name);
}
assert.deepEqual(Object.keys(answers).sort(), [...listed].sort());
assert.deepEqual(answers.search.results.map((hit) => hit.id), ['rivers/danube#0']);
assert.equal(answers.fetch.text, 'The Danube flows into the Black Sea.');
assert.deepEqual(answers.find_similar.results.map((hit) => hit.id), ['rivers/rhine#0']);
const both = await client.callTool({ name: 'search', arguments: { query: 'Black Sea', include: ['structured'] } });
assert.deepEqual(both.structuredContent, JSON.parse(both.content[0].text));
assert.equal(answers.delete_documents.deleted, 1);

const refused = await client.callTool({ name: 'search', arguments: { query: 'x', limit: 1000 } });
assert.ok(refused.isError && refused.content[0].text.includes('limit'), JSON.stringify(refused));
await assert.rejects(client.callTool({ name: 'drop_tables', arguments: {} }), /drop_tables/);

assert.ok((await client.listPrompts()).prompts.some((prompt) => prompt.name === 'answer_with_citations'));
assert.equal((await client.listResourceTemplates()).resourceTemplates.length, 1);
await client.ping();
await client.close();
console.log(JSON.stringify({ called: Object.keys(answers) }));
