package mapping

// derivation says that a claim is computed and not simply read.
type derivation uint8

const (
	plain derivation = iota
	derivedEmail
	derivedEmailDomain
)

// A claim is what one provider's tokens are declared to carry under a name.
type claim struct {
	name       string
	from       string // defaults to the name
	sources    sources
	kind       kind
	fallback   value
	hasDefault bool
	required   bool
	fold       bool
	editable   bool // people can change it themselves, so it must not grant anything
	derived    derivation

	expression expression
	verified   expression     // of a derived claim: where "verified" stands
	used       bool           // by a rule, a token or a users column
	decides    bool           // read by a deny rule or a rule
	slot       int            // its place among the values of a decision
	needed     bool           // has a slot
	literals   map[string]int // the texts that conditions compare it with, and their indexes in the provider
	beginnings map[string]int // the same of what they ask it to begin with
	prefixes   prefixes       // those, once all are known
}

// mayBeAbsent reports whether the claim leaves open what its absence means.
func (c *claim) mayBeAbsent() bool { return !c.hasDefault && !c.required }

// emptySet is the default of a set that the provider leaves out when it is empty.
var emptySet = value{state: stateDefault, list: []string{}}

// editedByPeople are the keys of OpenID Connect Core 5.1 and of some providers whose values a person can usually change or choose. An
// "email" that is read plainly is among them: nobody has verified it.
var editedByPeople = []string{
	"name", "given_name", "family_name", "middle_name", "nickname", "preferred_username", "profile", "picture", "website", "gender",
	"birthdate", "zoneinfo", "locale", "phone_number", "address", "email", "upn", "unique_name",
}

// standard are the claims that every preset declares. They are few, because each session keeps them; a file may declare more.
func standard() []claim {
	return []claim{
		{name: "sub", required: true},
		{name: "email", derived: derivedEmail},
		{name: "email_domain", kind: kindDomain, derived: derivedEmailDomain},
		{name: "name", editable: true},
		{name: "nickname", editable: true},
		{name: "preferred_username", editable: true},
		{name: "acr"},
		{name: "amr", kind: kindSet},
	}
}

var presetNames = []string{"google", "keycloak", "entra", "generic"}

// presetClaims returns what a preset declares. client is Keycloak's, and may be empty.
func presetClaims(preset, client string) []claim {
	claims := standard()
	switch preset {
	case "google":
		// The domain of the Workspace or Cloud organisation; consumer accounts have none. Google sends no groups.
		claims = append(claims, claim{name: "hd", kind: kindDomain})
	case "keycloak":
		// A stock realm writes roles into the access token only, and leaves empty lists out. Groups need the group mapper: absent may mean
		// that nobody configured it, so the file must say what it means.
		claims = append(claims,
			claim{name: "realm_roles", from: "/realm_access/roles", sources: accessToken, kind: kindSet, hasDefault: true, fallback: emptySet},
			claim{name: "groups", kind: kindSet})
		if client != "" {
			claims = append(claims, claim{
				name: "client_roles", from: "/resource_access/" + escapePointer(client) + "/roles",
				sources: accessToken, kind: kindSet, hasDefault: true, fallback: emptySet,
			})
		}
	case "entra":
		// oid and tid never change; roles are the app roles, left out when there is none. Groups are cut off above 200 (broken) and absent
		// when the app registration does not send them.
		claims = append(claims,
			claim{name: "oid"},
			claim{name: "tid"},
			claim{name: "roles", kind: kindSet, hasDefault: true, fallback: emptySet},
			claim{name: "wids", kind: kindSet},
			claim{name: "upn", editable: true},
			claim{name: "groups", kind: kindSet})
	}
	return claims
}
