//! Validates a bucket's listing before it is trusted. Pure.
//!
//! Nothing else in a bucket is trusted (objects have digests), but a listing decides which snapshot is the newest, and
//! which segments are unused. A page is accepted only if it is a complete `ListBucketResult` and says whether another
//! page follows.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Pages of one listing; services put up to 1,000 names on one.
pub(super) const PAGES_MAX: usize = 10_000;
/// Maximum consecutive pages without names; services that skip deleted objects return a few.
pub(super) const EMPTY_PAGES_MAX: usize = 100;
/// Names of one listing.
pub(super) const NAMES_MAX: usize = 2_000_000;
/// Deeper than any listing.
const DEPTH_MAX: usize = 16;
/// Letters of an unexpected answer that an error shows.
const SHOWN: usize = 60;

/// Why a listing was not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// Something else answers at the address: a console, a proxy, a login page.
    #[error("what answers at this address is not a bucket: expected a listing, found {found}")]
    NotAListing {
        /// The beginning of what came.
        found: String,
    },
    /// The answer stops in the middle, or is not well-formed.
    #[error("the listing is not whole: {what}")]
    NotWhole {
        /// The problem.
        what: String,
    },
    /// There is more, and no way to ask for it.
    #[error(
        "the listing is cut: the service says that there is more and gives no token to ask for it (Ceph before 14.2.5 does that)"
    )]
    NoToken,
    /// The pages form a cycle.
    #[error("the service gives the same part of its listing again and again")]
    Repeats,
    /// The listing does not end.
    #[error("the listing has no end: it was given up after {pages} pages and {names} names")]
    Endless {
        /// Pages that came.
        pages: usize,
        /// Names on them.
        names: usize,
    },
    /// The listing takes too long.
    #[error("the listing was not complete after {seconds} seconds")]
    TooSlow {
        /// How long was waited.
        seconds: u64,
    },
    /// The service knows no such bucket.
    #[error("there is no such bucket")]
    NoBucket,
}

/// Looks at one page of a listing.
///
/// # Errors
/// When it is something else, is not whole, or is cut without a way to the rest.
pub fn check_page(page: &[u8]) -> Result<(), ListingError> {
    let mut reader = Reader::from_reader(page);
    let mut path: Vec<Vec<u8>> = Vec::new();
    let (mut is_closed, mut is_truncated, mut has_token) = (false, Vec::new(), false);
    loop {
        let event = reader.read_event().map_err(|error| match path.is_empty() {
            true => not_a_listing(page),
            false => ListingError::NotWhole { what: error.to_string() },
        })?;
        match event {
            Event::Start(start) => {
                let name = start.local_name().as_ref().to_vec();
                if path.is_empty() && (is_closed || name != b"ListBucketResult") {
                    return Err(not_a_listing(page));
                }
                path.push(name);
                if path.len() > DEPTH_MAX {
                    return Err(ListingError::NotWhole { what: format!("elements within {DEPTH_MAX} others") });
                }
            }
            Event::End(_) => {
                path.pop();
                is_closed = path.is_empty();
            }
            Event::Empty(_) if path.is_empty() => return Err(not_a_listing(page)),
            Event::Text(text) => match path.as_slice() {
                [] if !text.iter().all(u8::is_ascii_whitespace) => return Err(not_a_listing(page)),
                [_, name] if name == b"IsTruncated" => is_truncated.extend_from_slice(&text),
                [_, name] if name == b"NextContinuationToken" => has_token |= !text.is_empty(),
                _ => {}
            },
            Event::CData(_) | Event::GeneralRef(_) => {
                has_token |= path.last().is_some_and(|name| name == b"NextContinuationToken");
            }
            Event::Eof if is_closed => break,
            Event::Eof if path.is_empty() => return Err(not_a_listing(page)),
            Event::Eof => return Err(ListingError::NotWhole { what: "it stops in the middle".to_owned() }),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    match (is_truncated.trim_ascii(), has_token) {
        (b"true", false) => Err(ListingError::NoToken),
        _ => Ok(()),
    }
}

fn not_a_listing(page: &[u8]) -> ListingError {
    let text = String::from_utf8_lossy(&page[..page.len().min(4 * SHOWN)]);
    let text = text.trim();
    let found = match text.chars().take(SHOWN).collect::<String>() {
        none if none.is_empty() => "an empty answer".to_owned(),
        some => format!("'{}'", some.escape_debug()),
    };
    ListingError::NotAListing { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                        <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>store</Name>";

    fn page(rest: &str) -> Result<(), ListingError> {
        check_page(format!("{HEAD}{rest}</ListBucketResult>\n").as_bytes())
    }

    #[test]
    fn whole_pages_are_taken() {
        for rest in [
            "",
            "<IsTruncated>false</IsTruncated>",
            "<Contents><Key>a&amp;b</Key><Size>3</Size><ETag>&quot;x&quot;</ETag></Contents>",
            "<IsTruncated>true</IsTruncated><NextContinuationToken>abc</NextContinuationToken>",
            "<IsTruncated>true</IsTruncated><NextContinuationToken>&amp;</NextContinuationToken>",
            "<!-- a remark --><CommonPrefixes/>",
        ] {
            assert_eq!(page(rest), Ok(()), "{rest}");
        }
    }

    #[test]
    fn a_page_that_is_cut_without_a_token_is_refused() {
        for rest in [
            "<IsTruncated>true</IsTruncated>",
            "<IsTruncated> true </IsTruncated><NextContinuationToken></NextContinuationToken>",
            "<NextContinuationToken/><IsTruncated>true</IsTruncated>",
            // One of something else.
            "<IsTruncated>true</IsTruncated><Contents><NextContinuationToken/></Contents>",
        ] {
            assert_eq!(page(rest), Err(ListingError::NoToken), "{rest}");
        }
    }

    #[test]
    fn what_is_no_listing_is_shown() {
        for other in [
            "<html><body>Sign in</body></html>",
            "<!DOCTYPE html><html><head><meta charset=\"utf-8\"></head></html>",
            "<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>",
            "{\"ok\":true}",
            "plain words",
            "",
            "<ListBucketResult/>",
        ] {
            let error = check_page(other.as_bytes()).expect_err(other);
            assert!(matches!(error, ListingError::NotAListing { .. }), "{other}: {error}");
            let shown = error.to_string();
            assert!(other.is_empty() || shown.contains(&other[..7].replace('"', "\\\"")), "{shown}");
        }
    }

    #[test]
    fn a_page_that_stops_early_or_is_made_to_hurt_is_refused() {
        let whole = format!("{HEAD}<Contents><Key>a</Key></Contents></ListBucketResult>");
        for length in 0..whole.len() {
            assert!(check_page(&whole.as_bytes()[..length]).is_err(), "cut to {length}");
        }
        assert!(check_page(format!("{HEAD}{}", "<Contents>".repeat(100_000)).as_bytes()).is_err());
        assert!(check_page(format!("{HEAD}</Wrong>").as_bytes()).is_err());
    }
}
