// Scores every row of a tile against QUERIES queries: a workgroup a block of 256 rows, 256 / LANES rows an invocation.
//
// Rows lie chunk by chunk, a chunk being two vec4s of words (`vectors[((block * chunks + chunk) * 256 + row) * 2]`), so that neighbours
// in a workgroup read neighbours in memory. Queries lie chunk by chunk too, one query's beside the other's, and go through the workgroup's
// memory STAGE chunks at a time. What a score is added up in has a name of its own for each query and row, so that it stays in a
// register; the marks below are replaced by the lines for all of them. keys.wgsl stands before this.

@group(0) @binding(1) var<storage, read> vectors: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> queries: array<vec4<u32>>;

// The queries of some chunks, VECTORS vec4s for each.
var<workgroup> staged: array<vec4<Number>, STAGE * QUERIES * VECTORS>;

@compute @workgroup_size(LANES)
fn score(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    begin(lane);
    let base = workgroup.x * tile.chunks * 512u + lane * 2u;
    //BEGIN
    for (var stage = 0u; stage < tile.chunks; stage += STAGE) {
        let end = min(tile.chunks, stage + STAGE);
        workgroupBarrier();
        for (var place = lane; place < (end - stage) * QUERIES * 2u; place += LANES) {
            let words = queries[tile.queries + stage * QUERIES * 2u + place];
            //STAGED
        }
        workgroupBarrier();
        var chunk = stage;
        for (; chunk + AHEAD <= end; chunk += AHEAD) {
            //AHEAD
        }
        for (; chunk < end; chunk += 1u) {
            //ONE
        }
    }
    let block = tile.block + workgroup.x;
    let row = block * 256u + lane;
    //OFFER
    end(block, lane);
}
