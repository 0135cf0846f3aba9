// Package pinned names the package whose tests are run.
package pinned

import _ "github.com/hashicorp/go-tfe"
