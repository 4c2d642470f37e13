// Scores every row of a tile against up to QUERIES queries; each workgroup writes down its best.
//
// A workgroup takes blocks of 256 rows in turn, a row an invocation. Rows lie chunk by chunk, a chunk being a vec4 of words
// (`vectors[(block * chunks + chunk) * 256 + row]`), so that neighbours in a workgroup read neighbours in memory. The marks below
// are replaced by one line for each query.

struct Tile {
    // Rows, of which the last block may have fewer than 256.
    rows: u32,
    blocks: u32,
    // vec4s of a row.
    chunks: u32,
    // Workgroups.
    groups: u32,
    // Rows that are wanted for each query, at most LIST - 256.
    limit: u32,
    // Number of the first row in the matrix.
    first: u32,
    // Queries that count; what is left of QUERIES is padding.
    queries: u32,
    // Number of the first workgroup among all that score these queries.
    group: u32,
}

@group(0) @binding(0) var<uniform> tile: Tile;
@group(0) @binding(1) var<storage, read> vectors: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> queries: array<vec4<Number>>;
// A bit for each row that may be found; those of a query begin at its mask.
@group(0) @binding(3) var<storage, read> admitted: array<u32>;
@group(0) @binding(4) var<storage, read> masks: array<u32>;
// The highest bar of each query in any workgroup.
@group(0) @binding(5) var<storage, read_write> known_bars: array<atomic<u32>>;
// `limit` entries for each workgroup and query.
@group(0) @binding(6) var<storage, read_write> found: array<vec2<u32>>;

fn offer(query: u32, score: f32, place: u32) {
    if place < tile.rows && query < tile.queries {
        let word = admitted[masks[query] + place / 32u];
        if (word & (1u << (place % 32u))) != 0u {
            keep(query, ordered(score), tile.first + place);
        }
    }
}

@compute @workgroup_size(256)
fn score(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    empty_lists(lane);
    for (var block = workgroup.x; block < tile.blocks; block += tile.groups) {
        let base = block * tile.chunks * 256u + lane;
        //BEGIN
        for (var chunk = 0u; chunk < tile.chunks; chunk++) {
            let row = vectors[base + chunk * 256u];
            //READ
            //ADD
        }
        if lane < QUERIES {
            bars[lane] = max(bars[lane], atomicLoad(&known_bars[lane]));
        }
        workgroupBarrier();
        let place = block * 256u + lane;
        //OFFER
        workgroupBarrier();
        for (var query = 0u; query < QUERIES; query++) {
            if make_room(query, tile.limit, lane) && lane == 0u {
                atomicMax(&known_bars[query], bars[query]);
            }
        }
        workgroupBarrier();
    }
    for (var query = 0u; query < QUERIES; query++) {
        if lane == 0u {
            totals[query] = atomicLoad(&counts[query]);
        }
        workgroupBarrier();
        cut(query, tile.limit, lane);
        if lane == 0u {
            atomicMax(&known_bars[query], bars[query]);
        }
        let start = ((tile.group + workgroup.x) * QUERIES + query) * tile.limit;
        for (var entry = lane; entry < tile.limit; entry += 256u) {
            let place = query * LIST + entry;
            found[start + entry] = vec2<u32>(keys[place], rows[place]);
        }
    }
}
