// Scores as score.wgsl does, inner products of halves by the device's units for matrices of 16 x 16: SETS of 16 queries.
//
// A chunk is 16 numbers of a row, so the chunks of 16 rows are such a matrix, and so are those of 16 queries. As in score.wgsl, the
// marks below are replaced by the lines for all matrices. keys.wgsl stands before this.

@group(0) @binding(1) var<storage, read> vectors: array<f16>;
@group(0) @binding(2) var<storage, read> queries: array<f16>;

alias Rows = coop_mat16x16<f16, A>;
alias Queries = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

// From one query's sums to the next one's, which are in other banks.
const STRIDE = 264u;

var<workgroup> sums: array<f32, 16 * STRIDE>;

// A subgroup has 32 invocations, and SHARE times 16 rows of the block.
@compute @workgroup_size(LANES)
fn score(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    begin(lane);
    var rows = workgroup.x * tile.chunks * 4096u + subgroup * SHARE * 256u;
    var query = tile.queries * 8u;
    //BEGIN
    var chunk = 0u;
    for (; chunk + AHEAD <= tile.chunks; chunk += AHEAD) {
        //AHEAD
        rows += AHEAD * 4096u;
        query += AHEAD * SETS * 256u;
    }
    for (; chunk < tile.chunks; chunk += 1u) {
        //ONE
        rows += 4096u;
        query += SETS * 256u;
    }
    let block = tile.block + workgroup.x;
    let row = block * 256u + lane;
    //OFFER
    end(block, lane);
}
