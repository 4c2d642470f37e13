use std::io;

use proptest::collection::vec;
use proptest::prelude::*;

use super::protocol::{
    Adapter, AdapterKind, DIMENSIONS_MAX, Failure, Format, LIMIT_MAX, Message, Metric, ProtocolError, Request,
    Response, receive, to_bytes,
};

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::F32), Just(Format::F16), Just(Format::I8)]
}

fn metric() -> impl Strategy<Value = Metric> {
    prop_oneof![Just(Metric::Dot), Just(Metric::Cosine), Just(Metric::L2)]
}

fn search() -> impl Strategy<Value = Request> {
    (any::<u32>(), 1..=LIMIT_MAX, 1..40u32, 0..5usize, vec(vec(any::<u32>(), 0..9), 0..3)).prop_flat_map(
        |(matrix, limit, dimensions, count, filters)| {
            let numbers = vec(any::<u16>(), count * dimensions as usize);
            let filter_of = vec(0..=filters.len() as u32, count);
            (numbers, filter_of).prop_map(move |(queries, filter_of)| {
                let filters = filters.clone();
                Request::Search { matrix, limit, queries, dimensions, filters, filter_of }
            })
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let load = (any::<u32>(), format(), metric(), 1..=DIMENSIONS_MAX, any::<u32>());
    prop_oneof![
        Just(Request::List),
        any::<bool>().prop_map(|software| Request::Open { software }),
        load.prop_map(|(matrix, format, metric, dimensions, rows)| {
            Request::Load { matrix, format, metric, dimensions, rows }
        }),
        any::<(u32, u32)>().prop_map(|(matrix, rows)| Request::Append { matrix, rows }),
        (any::<u32>(), vec(any::<[u32; 2]>(), 0..20)).prop_map(|(matrix, ranges)| Request::Remove { matrix, ranges }),
        search(),
        any::<u32>().prop_map(|matrix| Request::Drop { matrix }),
        Just(Request::Ping),
    ]
}

fn adapter() -> impl Strategy<Value = Adapter> {
    let kind = prop_oneof![Just(AdapterKind::Discrete), Just(AdapterKind::Integrated), Just(AdapterKind::Software)];
    (".{0,40}", ".{0,40}", kind, any::<u64>(), any::<u32>(), any::<[bool; 2]>()).prop_map(
        |(name, driver, kind, buffer_bytes_max, workgroup_bytes_max, [has_f16, has_subgroups])| Adapter {
            name,
            driver,
            kind,
            buffer_bytes_max,
            workgroup_bytes_max,
            has_f16,
            has_subgroups,
        },
    )
}

fn response() -> impl Strategy<Value = Response> {
    let failure = prop_oneof![Just(Failure::NoDevice), Just(Failure::OutOfMemory), Just(Failure::BadRequest)];
    // NaN scores are not equal to themselves.
    let found = vec(vec((any::<u32>(), -1e6f32..1e6), 0..20), 0..6);
    prop_oneof![
        vec(adapter(), 0..4).prop_map(|adapters| Response::Adapters { adapters }),
        adapter().prop_map(|adapter| Response::Opened { adapter }),
        any::<u64>().prop_map(|bytes| Response::Done { bytes }),
        (found, any::<(u32, u64, u32)>()).prop_map(|(results, (micros, device_nanos, passes))| {
            Response::Found { results, micros, device_nanos, passes }
        }),
        (failure, ".{0,60}").prop_map(|(failure, message)| Response::Failed { failure, message }),
    ]
}

proptest! {
    #[test]
    fn requests_arrive_as_they_were_sent(number: u64, request in request()) {
        let bytes = to_bytes(number, &request);
        let received = receive::<Request>(&mut &*bytes);
        prop_assert_eq!(received.map_err(|error| error.to_string()), Ok((number, request)));
    }

    #[test]
    fn responses_arrive_as_they_were_sent(number: u64, response in response()) {
        let bytes = to_bytes(number, &response);
        let received = receive::<Response>(&mut &*bytes);
        prop_assert_eq!(received.map_err(|error| error.to_string()), Ok((number, response)));
    }

    /// Truncated messages and surplus bytes are errors, and so is any changed byte, unless it makes another valid
    /// message.
    #[test]
    fn what_was_altered_is_noticed_or_is_another_message(request in request(), place: prop::sample::Index, byte: u8) {
        let (kind, payload) = request.encode();
        prop_assume!(!payload.is_empty());
        let cut = place.index(payload.len());
        prop_assert!(Request::decode(kind, &payload[..cut]).is_err());
        prop_assert!(Request::decode(kind, &[&*payload, &[byte]].concat()).is_err());
        let mut altered = payload.clone();
        altered[cut] = byte;
        if let Ok(other) = Request::decode(kind, &altered) {
            prop_assert_eq!(other.encode(), (kind, altered));
        }
    }

    /// No bytes make a reader panic or request more memory than a message may have.
    #[test]
    fn any_bytes_are_read_or_refused(kind in 0..120u16, payload in vec(any::<u8>(), 0..200)) {
        let _ = Request::decode(kind, &payload);
        let _ = Response::decode(kind, &payload);
    }
}

#[test]
fn a_connection_that_ends_is_told_apart_from_nonsense() {
    let bytes = to_bytes(1, &Request::Ping);
    let ended = receive::<Request>(&mut &bytes[..7]);
    assert!(matches!(ended, Err(ProtocolError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof));
    assert!(matches!(receive::<Request>(&mut &[7u8; 64][..]), Err(ProtocolError::Magic)));
}
