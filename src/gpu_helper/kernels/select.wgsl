// The best rows of each query by the keys that were written down for them: a workgroup a query.
//
// The best keys of the blocks fall into groups, whose best are sorted: that many of them as rows are wanted are as many rows, so the
// last of them is a bar that those that are wanted come up to. Blocks that do are few, and only their keys are read.

struct Selection {
    // Blocks of the matrix.
    blocks: u32,
    // Rows that are wanted of each query.
    limit: u32,
    // Groups of blocks: a multiple of LANES, at least limit and at most LIST.
    groups: u32,
    // Where the entries of the first query go.
    place: u32,
}

@group(0) @binding(0) var<uniform> selection: Selection;
@group(0) @binding(1) var<storage, read> written: array<u32>;
@group(0) @binding(2) var<storage, read> best: array<u32>;
// `limit` entries for each query; what was not found has key 0.
@group(0) @binding(3) var<storage, read_write> found: array<vec2<u32>>;

// Blocks that wait for their keys to be read.
const PENDING = 768u;
// Blocks whose keys are read at once.
const TOGETHER = 8u;

var<workgroup> pending: array<u32, PENDING>;
var<workgroup> waiting: atomic<u32>;
// What was counted when nobody was counting any more.
var<workgroup> counted: u32;

// Whether it is at or before the bar.
fn comes_up(key: u32, row: u32) -> bool {
    return key > bar_key || (key == bar_key && row < bar_row);
}

fn look_at(key: u32, block: u32) {
    if comes_up(key, block * 256u) {
        let place = atomicAdd(&waiting, 1u);
        if place < PENDING {
            pending[place] = block;
        }
    }
}

@compute @workgroup_size(LANES)
fn choose(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let query = workgroup.x;
    let blocks = selection.blocks;
    let limit = selection.limit;
    let bests = query * blocks;
    let groups = selection.groups;
    for (var group = lane; group < groups; group += LANES) {
        var most = 0u;
        for (var block = group; block < blocks; block += 8u * groups) {
            // Eight at once, since each takes its time to come; beyond the end the first again.
            var read: array<u32, 8>;
            for (var each = 0u; each < 8u; each++) {
                let other = block + each * groups;
                read[each] = best[bests + select(block, other, other < blocks)];
            }
            for (var each = 0u; each < 8u; each++) {
                most = max(most, read[each]);
            }
        }
        keys[group] = most;
        rows[group] = group;
    }
    workgroupBarrier();
    sort(groups, lane);
    if lane == 0u {
        // Key 0 is that of rows which may not be found.
        bar_key = max(keys[limit - 1u], 1u);
        bar_row = 0xffffffffu;
        atomicStore(&count, 0u);
    }
    // All blocks at once, mostly; where too many come up to the bar, as in a matrix of equal vectors, a part of them at a time.
    var start = 0u;
    var window = blocks;
    while start < blocks {
        if lane == 0u {
            atomicStore(&waiting, 0u);
        }
        workgroupBarrier();
        let end = min(start + window, blocks);
        for (var block = start + lane; block < end; block += 8u * LANES) {
            var read: array<u32, 8>;
            for (var each = 0u; each < 8u; each++) {
                read[each] = best[bests + min(block + each * LANES, end - 1u)];
            }
            for (var each = 0u; each < 8u; each++) {
                let other = block + each * LANES;
                if other < end {
                    look_at(read[each], other);
                }
            }
        }
        workgroupBarrier();
        if lane == 0u {
            counted = atomicLoad(&waiting);
        }
        let chosen = workgroupUniformLoad(&counted);
        if chosen > PENDING {
            // Too many at once. A window of no more than PENDING never has too many, so this ends.
            window = (window + 1u) / 2u;
        } else {
            take(query, chosen, lane);
            start = end;
        }
    }
    if lane == 0u {
        counted = atomicLoad(&count);
    }
    let length = workgroupUniformLoad(&counted);
    cut(length, limit, lane);
    for (var entry = lane; entry < limit; entry += LANES) {
        let is_there = entry < length;
        found[selection.place + query * limit + entry] =
            vec2<u32>(select(0u, keys[entry], is_there), select(0u, rows[entry], is_there));
    }
}

// Reads the keys of the first `chosen` blocks that wait, and keeps those that come up to the bar. The whole workgroup calls it.
fn take(query: u32, chosen: u32, lane: u32) {
    let first = query * selection.blocks * 256u;
    if lane == 0u {
        counted = atomicLoad(&count);
    }
    var had = workgroupUniformLoad(&counted);
    var at = 0u;
    var together = TOGETHER;
    while at < chosen {
        let last = min(at + together, chosen) - 1u;
        for (var row = lane; row < 256u; row += LANES) {
            var read: array<u32, TOGETHER>;
            for (var each = 0u; each < TOGETHER; each++) {
                read[each] = written[first + pending[min(at + each, last)] * 256u + row];
            }
            for (var each = 0u; each < TOGETHER; each++) {
                let in_matrix = pending[min(at + each, last)] * 256u + row;
                if at + each <= last && comes_up(read[each], in_matrix) {
                    keep(read[each], in_matrix);
                }
            }
        }
        workgroupBarrier();
        if lane == 0u {
            counted = atomicLoad(&count);
        }
        let has = workgroupUniformLoad(&counted);
        if has > LIST {
            // Some had no room. Those from before are cut, after which there is room for a block, and the first block is read again.
            cut(had, selection.limit, lane);
            had = min(had, selection.limit);
            together = 1u;
        } else {
            had = has;
            at = last + 1u;
            together = TOGETHER;
        }
    }
}
