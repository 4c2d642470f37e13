// The best rows of each query within a workgroup of 256 invocations: a list of (key, row) in the workgroup's memory.
//
// A key orders as the score does, and is 0 where there is none. Nothing below a list's bar is kept: it is what the last of `limit`
// had when a list of this query was last sorted, here or in another workgroup, so what is below cannot be among the best. Equal keys
// go by row, lower first; what equals the bar is kept for that reason.
//
// Before it stand QUERIES, the number of lists, and LIST, the entries of one: a power of two, at least limit + 256.

var<workgroup> keys: array<u32, QUERIES * LIST>;
var<workgroup> rows: array<u32, QUERIES * LIST>;
var<workgroup> counts: array<atomic<u32>, QUERIES>;
// What the counts were when nobody was adding.
var<workgroup> totals: array<u32, QUERIES>;
var<workgroup> bars: array<u32, QUERIES>;

// Orders as the number does; no number gives 0.
fn ordered(score: f32) -> u32 {
    let bits = bitcast<u32>(score);
    return max(select(bits | 0x80000000u, ~bits, bits >= 0x80000000u), 1u);
}

fn empty_lists(lane: u32) {
    if lane < QUERIES {
        atomicStore(&counts[lane], 0u);
        bars[lane] = 0u;
    }
    workgroupBarrier();
}

// There is room for one entry of each invocation.
fn keep(query: u32, key: u32, row: u32) {
    if key != 0u && key >= bars[query] {
        let place = query * LIST + atomicAdd(&counts[query], 1u);
        keys[place] = key;
        rows[place] = row;
    }
}

// Whether the entry at left comes before that at right.
fn is_before(left: u32, right: u32) -> bool {
    return keys[left] > keys[right] || (keys[left] == keys[right] && rows[left] < rows[right]);
}

// Sorts a list, best first, and leaves the best `limit`. The whole workgroup calls it. (Batcher's bitonic sort.)
fn cut(query: u32, limit: u32, lane: u32) {
    let start = query * LIST;
    let count = totals[query];
    for (var place = count + lane; place < LIST; place += 256u) {
        keys[start + place] = 0u;
        rows[start + place] = 0xffffffffu;
    }
    workgroupBarrier();
    for (var size = 2u; size <= LIST; size <<= 1u) {
        for (var stride = size >> 1u; stride > 0u; stride >>= 1u) {
            for (var pair = lane; pair < LIST / 2u; pair += 256u) {
                let offset = 2u * pair - (pair & (stride - 1u));
                let left = start + offset;
                let right = left + stride;
                if is_before(right, left) == ((offset & size) == 0u) {
                    let key = keys[left];
                    let row = rows[left];
                    keys[left] = keys[right];
                    rows[left] = rows[right];
                    keys[right] = key;
                    rows[right] = row;
                }
            }
            workgroupBarrier();
        }
    }
    if lane == 0u {
        totals[query] = min(count, limit);
        atomicStore(&counts[query], min(count, limit));
        if count >= limit {
            bars[query] = max(bars[query], keys[start + limit - 1u]);
        }
    }
    workgroupBarrier();
}

// Makes room in a list for 256 more; whether it was cut for it. The whole workgroup calls it, once nobody is adding.
fn make_room(query: u32, limit: u32, lane: u32) -> bool {
    if lane == 0u {
        totals[query] = atomicLoad(&counts[query]);
    }
    let is_full = workgroupUniformLoad(&totals[query]) > LIST - 256u;
    if is_full {
        cut(query, limit, lane);
    }
    return is_full;
}
