package mapping

import (
	"fmt"
	"strings"

	"github.com/oidc-bridge/oidc-bridge/mapping/strictyaml"
)

// IssuerFindings checks what depends on the issuers, which stand in config.yaml: E305 for a multi-tenant issuer without tenants and E306 for
// one whose e-mails are assumed to be verified. issuers are by provider.
func (r *Rules) IssuerFindings(issuers map[string]string) []strictyaml.Finding {
	var findings []strictyaml.Finding
	for _, name := range r.names {
		p, issuer := r.providers[name], issuers[name]
		if !p.multiTenant(issuer) {
			continue
		}
		finding := p.at
		if p.tenants == nil {
			finding.Code = "E305"
			finding.Message = fmt.Sprintf("provider %q: anybody's tenant can log in at %s", name, issuer)
			finding.Fix = "list those that may: tenants: [tenant ids], or use the issuer of your own tenant"
			findings = append(findings, finding)
		}
		if p.verification == verifiedAssumed {
			finding.Code = "E306"
			finding.Message = fmt.Sprintf("provider %q: an e-mail from %s cannot be assumed to be verified", name, issuer)
			finding.Fix = "remove email_verified: any tenant's administrator can give an account any e-mail address"
			findings = append(findings, finding)
		}
	}
	return findings
}

// multiTenant reports whether an issuer of Microsoft Entra serves everybody's tenant. A realm of Keycloak may be called common.
func (p *provider) multiTenant(issuer string) bool {
	if p.preset == "keycloak" || p.preset == "google" {
		return false
	}
	for segment := range strings.SplitSeq(issuer, "/") {
		switch strings.ToLower(segment) {
		case "common", "organizations", "consumers", "{tenantid}", "%7btenantid%7d":
			return true
		}
	}
	return false
}
