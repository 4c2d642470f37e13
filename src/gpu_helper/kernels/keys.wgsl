// What is written down of scores: a key for each query and row, and the best key for each query and block of 256 rows.
//
// A key orders as the score does, and is 0 where the row may not be found. Before this stand QUERIES, the number of queries, and LANES.

struct Tile {
    // 32 bytes each, of a row.
    chunks: u32,
    // Number of the first block in the matrix.
    block: u32,
    // Blocks of the matrix.
    blocks: u32,
    // Where the queries begin, in vec4s of words.
    queries: u32,
    // Word at which the bits for each query begin.
    masks: array<vec4<u32>, 8>,
}

@group(0) @binding(0) var<uniform> tile: Tile;
// A bit for each row that may be found.
@group(0) @binding(3) var<storage, read> admitted: array<u32>;
// A key for each query and row of the matrix.
@group(0) @binding(4) var<storage, read_write> keys: array<u32>;
// The best key of each query and block of the matrix.
@group(0) @binding(5) var<storage, read_write> best: array<u32>;

const NO_MASK = 0xffffffffu;

var<workgroup> most: array<atomic<u32>, QUERIES>;

// A barrier comes before the first offer.
fn begin(lane: u32) {
    for (var query = lane; query < QUERIES; query += LANES) {
        atomicStore(&most[query], 0u);
    }
}

// Orders as the number does; no number gives 0.
fn ordered(score: f32) -> u32 {
    let bits = select(bitcast<u32>(score), 0u, score == 0.0);
    return max(select(bits | 0x80000000u, ~bits, bits >= 0x80000000u), 1u);
}

// Where the bits of a query begin.
fn mask_of(query: u32) -> u32 {
    return tile.masks[query / 4u][query % 4u];
}

// Writes the key of a row down, which may be found where its bit is set in the word of its bits.
fn offer(query: u32, score: f32, row: u32, word: u32) -> u32 {
    let key = select(0u, ordered(score), (word & (1u << (row % 32u))) != 0u);
    keys[query * tile.blocks * 256u + row] = key;
    return key;
}

// Writes the best keys of a block down. The whole workgroup calls it.
fn end(block: u32, lane: u32) {
    workgroupBarrier();
    for (var query = lane; query < QUERIES; query += LANES) {
        best[query * tile.blocks + block] = atomicLoad(&most[query]);
    }
}
