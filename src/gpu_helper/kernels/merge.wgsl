// The best of all that workgroups wrote down: one workgroup a query, with one list.

struct Lists {
    // Of each query.
    lists: u32,
    // Entries of a list.
    limit: u32,
    // Queries that the lists were written for, padding included.
    queries: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> lists: Lists;
@group(0) @binding(1) var<storage, read> found: array<vec2<u32>>;
// `limit` entries for each query; what was not found has key 0.
@group(0) @binding(2) var<storage, read_write> best: array<vec2<u32>>;

@compute @workgroup_size(256)
fn merge(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    empty_lists(lane);
    let query = workgroup.x;
    let all = lists.lists * lists.limit;
    for (var start = 0u; start < all; start += 256u) {
        let entry = start + lane;
        if entry < all {
            let list = entry / lists.limit;
            let pair = found[(list * lists.queries + query) * lists.limit + entry % lists.limit];
            keep(0u, pair.x, pair.y);
        }
        workgroupBarrier();
        make_room(0u, lists.limit, lane);
    }
    if lane == 0u {
        totals[0] = atomicLoad(&counts[0]);
    }
    workgroupBarrier();
    cut(0u, lists.limit, lane);
    for (var entry = lane; entry < lists.limit; entry += 256u) {
        best[query * lists.limit + entry] = vec2<u32>(keys[entry], rows[entry]);
    }
}
