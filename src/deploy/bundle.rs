//! Bundles: everything that a machine without a network gets, in one signed file. The program, models, documents, settings and
//! images of other servers.
//!
//! A bundle is a plain tar archive. Its first member says what is in it, with the digests of every file; its second is the
//! signature of the first, in minisign's format. So one signature covers everything, one file is enough on a stick, and
//! `tar` and `minisign` can open and check a bundle without Cairn.
//!
//! [`open`] gives nothing out that the signature does not cover. [`Verified::extract`] checks each file while it writes it, and
//! gives it its name only once it is right. Memory is bounded: by the list of members, which may have 32 MiB, and by a buffer.
#![doc = include_str!("FORMAT.md")]

mod contents;
mod key;
mod reader;
mod writer;

pub use self::contents::{Contents, ContentsError, FORMAT, Member, MemberRole};
pub use self::key::{KeyError, KeyPair, LockedKey, PublicKey, SecretKey, SignatureError};
pub use self::reader::{OpenError, Verified, list_unverified, open};
pub use self::writer::{CreateError, Plan, Written};

/// Name of the member that lists the others.
const CONTENTS: &str = "bundle.json";
/// Name of the member with the signature of the list.
const SIGNATURE: &str = "bundle.json.minisig";
/// The longest list that is read or written.
const CONTENTS_BYTES_MAX: u64 = 32 << 20;
/// The longest signature that is read; minisign's have 300 to 600 bytes.
const SIGNATURE_BYTES_MAX: u64 = 4 << 10;
/// What files are read by.
const BUFFER_BYTES: usize = 1 << 18;
/// The last part of a bundle's name.
pub const EXTENSION: &str = "bundle";
