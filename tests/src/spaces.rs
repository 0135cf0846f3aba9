//! Namespaces of a test's own: file systems, processes and networks that nothing else on the machine has.

use std::process::Command;

/// Whether this process may have them; if not, one line says what was not tried for it.
pub fn allowed(untried: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("missing: root; {untried}");
        return false;
    }
    let spaces = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--mount-proc", "--net", "true"])
        .status();
    let allowed = spaces.is_ok_and(|status| status.success());
    if !allowed {
        eprintln!("missing: the right to namespaces (unshare); {untried}");
    }
    allowed
}
