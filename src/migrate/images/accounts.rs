//! Names of users and groups, and their numbers, by an image's `/etc/passwd` and `/etc/group`.
//!
//! Invariant: a number is never guessed. A name that stands on a line without a number has none.
//!
//! Source: passwd(5) and group(5). A name is looked for as Docker does (the Go module `github.com/moby/sys/user`, `GetExecUser`): by name or
//! by number, the first line that fits; a number without a line is itself. Docker's numbers end at 2^31 - 1, as those of Kubernetes do.

use std::sync::Arc;

/// The largest number of a user or a group.
const NUMBER_MAX: u32 = i32::MAX as u32;

/// The two files, as far as the image has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Accounts {
    pub(super) users: Option<Arc<[u8]>>,
    pub(super) groups: Option<Arc<[u8]>>,
}

impl Accounts {
    /// The number of a user.
    pub(super) fn user(&self, name: &str) -> Option<u32> {
        match line(self.users.as_ref(), name) {
            Some(fields) => number(fields.get(2)?),
            None => number(name),
        }
    }

    /// The number of a user's own group.
    pub(super) fn group_of(&self, user: &str) -> Option<u32> {
        number(line(self.users.as_ref(), user)?.get(3)?)
    }

    /// The number of a group.
    pub(super) fn group(&self, name: &str) -> Option<u32> {
        match line(self.groups.as_ref(), name) {
            Some(fields) => number(fields.get(2)?),
            None => number(name),
        }
    }
}

fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && *number <= NUMBER_MAX)
}

/// The fields of the first line that has the name, or the number in its third field.
fn line<'a>(file: Option<&'a Arc<[u8]>>, name: &str) -> Option<Vec<&'a str>> {
    let wanted = number(name);
    let lines = file?.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.map(|line| line.trim().split(':').collect::<Vec<_>>()).find(|fields| {
        fields.first().is_some_and(|first| !first.is_empty() && *first == name)
            || (wanted.is_some() && fields.get(2).and_then(|field| number(field)) == wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_files_and_never_guessed() {
        let users = b"root:x:0:0:root:/root:/bin/sh\n\n# a comment\nbroken:x::0\n\xff:x:1:1\npostgres:x:999:998:,,,:/:/bin/sh\n\
                      postgres:x:1:1\nlarge:x:4294967295:5\n";
        let groups = b"root:x:0:\npostgres:x:997:a,b\n";
        let accounts = Accounts { users: Some(users[..].into()), groups: Some(groups[..].into()) };
        assert_eq!(accounts.user("postgres"), Some(999), "the first line counts");
        assert_eq!(accounts.group_of("postgres"), Some(998));
        assert_eq!(accounts.group_of("999"), Some(998), "by number");
        assert_eq!(accounts.group("postgres"), Some(997));
        assert_eq!(accounts.user("1000"), Some(1000), "a number without a line");
        assert_eq!(accounts.group_of("1000"), None);
        assert_eq!(accounts.group("12"), Some(12));
        for name in ["nobody", "broken", "large", "", "-1", "+5", "4294967296", "2147483648", "# a comment"] {
            assert_eq!(accounts.user(name), None, "{name}");
        }
        assert_eq!(Accounts::default().user("root"), None, "an image without the file");
        assert_eq!(Accounts::default().user("0"), Some(0));
    }
}
