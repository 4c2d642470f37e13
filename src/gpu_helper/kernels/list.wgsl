// The best rows of a query within a workgroup: a list of (key, row) in its memory, cut when it is full.
//
// Nothing that comes behind the bar is kept: it is what the last of `limit` had when the list was last cut, so what is behind it
// cannot be among the best. Equal keys go by row, lower first.
//
// Before it stand LANES, the invocations, and LIST, the entries: at least the largest limit and 256 more.

var<workgroup> keys: array<u32, LIST>;
var<workgroup> rows: array<u32, LIST>;
// Entries, and those that there was no room for.
var<workgroup> count: atomic<u32>;
var<workgroup> bar_key: u32;
var<workgroup> bar_row: u32;

// Whether the entry at left comes before that at right.
fn is_before(left: u32, right: u32) -> bool {
    return keys[left] > keys[right] || (keys[left] == keys[right] && rows[left] < rows[right]);
}

fn exchange(left: u32, right: u32) {
    if is_before(right, left) {
        let key = keys[left];
        let row = rows[left];
        keys[left] = keys[right];
        rows[left] = rows[right];
        keys[right] = key;
        rows[right] = row;
    }
}

// Sorts the first `length` entries, best first. The whole workgroup calls it.
//
// Batcher's bitonic sort, of which the first step of each merge reads the second half backwards: then the better of two always goes to
// the lower place, and places from `length` on can be left out as if the worst were there.
fn sort(length: u32, lane: u32) {
    for (var half = 1u; half < length; half <<= 1u) {
        for (var pair = lane; ; pair += LANES) {
            let start = pair / half * half * 2u;
            let offset = pair % half;
            if start + half >= length {
                break;
            }
            let right = start + 2u * half - 1u - offset;
            if right < length {
                exchange(start + offset, right);
            }
        }
        workgroupBarrier();
        for (var stride = half >> 1u; stride > 0u; stride >>= 1u) {
            for (var pair = lane; ; pair += LANES) {
                let left = 2u * pair - (pair & (stride - 1u));
                if left >= length {
                    break;
                }
                if left + stride < length {
                    exchange(left, left + stride);
                }
            }
            workgroupBarrier();
        }
    }
}

// There is no room for it where the list is full; it is counted all the same.
fn keep(key: u32, row: u32) {
    let place = atomicAdd(&count, 1u);
    if place < LIST {
        keys[place] = key;
        rows[place] = row;
    }
}

// Leaves the best `limit` of the first `length` entries and has their last be the bar. The whole workgroup calls it.
fn cut(length: u32, limit: u32, lane: u32) {
    sort(length, lane);
    if lane == 0u {
        atomicStore(&count, min(length, limit));
        if length >= limit {
            bar_key = keys[limit - 1u];
            bar_row = rows[limit - 1u];
        }
    }
    workgroupBarrier();
}
