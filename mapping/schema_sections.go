package mapping

// The sections of the file as schemas; schema.go has the pieces.

func (w schemaWriter) providers() schema {
	return schema{
		"description": "What the tokens of each provider of config.yaml look like.", "type": "object", "minProperties": 1,
		"additionalProperties": ref("provider"),
	}
}

func (w schemaWriter) provider() schema {
	s := w.object(providerKeys, "", schema{
		"preset":            enum(presetNames, "What the provider is known to send; generic knows the standard claims only."),
		"client":            textOf("Keycloak: whose roles client_roles are, resource_access.CLIENT.roles."),
		"authoritative_for": someOf(schema{"type": "string"}, "Domains whose mailboxes this provider may vouch for; other addresses count as no e-mail."),
		"email_verified":    enum(verificationNames, "When an e-mail counts as verified: email_verified is true (required), may be the text \"true\" (string), or is never sent (assumed)."),
		"tenants":           someOf(ref("scalar"), "Entra: the ids of the tenants whose people may log in."),
		"claims": schema{
			"description": "Claims of your own, or options of those that the preset declares.", "type": "object",
			"additionalProperties": ref("claim"),
		},
	}, "preset")
	// E104: client is for Keycloak, tenants for Entra.
	s["allOf"] = []any{onlyWith("client", "keycloak"), onlyWith("tenants", "entra")}
	return s
}

func onlyWith(key, preset string) schema {
	return schema{"if": schema{"required": []string{key}}, "then": schema{"properties": schema{"preset": schema{"const": preset}}}}
}

func (w schemaWriter) claim() schema {
	return w.object(claimOptions, "", schema{
		"from":     textOf("Where it stands: a key, or a path when it begins with \"/\", such as /realm_access/roles. Default: the claim's name."),
		"type":     enum(kindNames, "What it is. Default: string."),
		"default":  schema{"description": "What absence means, such as [] for a set. A default or required is needed by lines that keep people out."},
		"required": flagOf("Nobody gets a role without it."),
		"fold":     flagOf("Compare ASCII letters in lower case."),
		"editable": flagOf("The person can change it: it must not grant anything."),
		"source": schema{"description": "Which tokens it is read from. Default: id_token, then userinfo.", "anyOf": []any{
			schema{"enum": sourceNames}, someOf(schema{"enum": sourceNames}, "The first of them that has it."),
		}},
	})
}

func (w schemaWriter) roles() schema {
	return schema{
		"description": "The only roles that this file can hand out. Each must exist in the database and be granted to the authenticator.",
		"type":        "object", "minProperties": 1,
		"propertyNames": schema{"minLength": 1, "maxLength": maxIdentifier, "not": schema{"anyOf": []any{schema{"enum": systemRoles}, schema{"pattern": "^pg_"}}}},
		"additionalProperties": w.object(roleKeys, "", schema{
			"privileged": flagOf("Needs a passing test with a refuse_if, and is never a default."),
			"max_ttl":    help(ref("duration"), "The longest life of a token with this role."),
		}),
	}
}

// help puts a description beside a reference, which hides its neighbours in draft-07.
func help(s schema, description string) schema {
	return schema{"description": description, "allOf": []any{s}}
}

func (w schemaWriter) deny() schema {
	s := w.object(denyKeys, "", schema{
		"name": textOf("Unique; it stands in logs, events and metrics."), "provider": w.providerName(), "when": schema{},
		"message": textOf("What the person is told."), "why": textOf("For those who read this file."),
	}, "name", "when")
	return w.byProvider(s, func(provider string) schema { return schema{"when": ref(w.whenOf(provider))} })
}

func (w schemaWriter) rule() schema {
	s := w.object(ruleKeys, "", schema{
		"name": textOf("Unique; it stands in logs, events and metrics."), "provider": w.providerName(), "when": schema{},
		"unless": someOf(schema{}, "Any item blocks the rule; an item holds when all of its lines do."),
		"by":     schema{},
		"to": someOf(schema{
			"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": w.roleName(),
		}, "Lines `- value: role`: the first value that the person has wins."),
		"role":  schema{"anyOf": []any{w.roleName(), w.rowRole()}},
		"token": schema{}, "ttl": help(ref("duration"), "The longest life of a token by this rule."),
		"until": help(ref("date"), "The last day on which the rule matches, in UTC."), "why": textOf("For those who read this file."),
	}, "name")
	s["oneOf"] = []any{schema{"required": []string{"role", "when"}}, schema{"required": []string{"by", "to"}}}
	return w.byProvider(s, func(provider string) schema {
		names := w.claimNames()
		if provider != "" {
			names = w.claimNames(provider)
		}
		return schema{
			"when": ref(w.whenOf(provider)), "unless": schema{"items": ref(w.whenOf(provider))}, "by": names,
			"token": w.token("Extra claims of tokens by this rule.", names),
		}
	})
}

// byProvider adds what depends on the provider that the rule names: whose claims it may read.
func (w schemaWriter) byProvider(s schema, properties func(provider string) schema) schema {
	switch names := w.rules.names; len(names) {
	case 0:
		s["allOf"] = []any{schema{"properties": properties("")}}
	case 1:
		s["allOf"] = []any{schema{"properties": properties(names[0])}}
	default:
		s["required"] = append(s["required"].([]string), "provider")
		var each []any
		for _, name := range names {
			each = append(each, schema{
				"if":   schema{"properties": schema{"provider": schema{"const": name}}, "required": []string{"provider"}},
				"then": schema{"properties": properties(name)},
			})
		}
		s["allOf"] = each
	}
	return s
}

func (w schemaWriter) rowRole() schema {
	return w.object(rowRoleKeys, "The role of the users row, within a list.", schema{
		"from":    schema{"const": "users"},
		"allow":   someOf(w.roleName(), "Any other role in the row is a refusal."),
		"default": help(w.roleName(), "For a row without a role; without it that is a refusal."),
	}, "from", "allow")
}

// condition is what a line may say about a claim of this kind.
func (w schemaWriter) condition(k kind) schema {
	value := ref("scalar")
	if k == kindBool {
		value = schema{"enum": []any{true, false, "true", "false"}}
	}
	ways, words := []any{value}, schema{}
	if anyOf.fits(k) {
		ways = append(ways, someOf(value, "Any of these."))
	}
	for _, o := range operators {
		switch {
		case !o.fits(k):
		case o.quantifier == present:
			words[o.word] = flagOf(operatorHelp[o.word])
		case o.takesList:
			words[o.word] = someOf(value, operatorHelp[o.word])
		case o.comparison != equal:
			words[o.word] = schema{"description": operatorHelp[o.word], "type": "string", "minLength": 1}
		default:
			words[o.word] = help(value, operatorHelp[o.word])
		}
	}
	ways = append(ways, schema{"type": "object", "properties": words, "additionalProperties": false, "minProperties": 1, "maxProperties": 1})
	return schema{"anyOf": ways}
}

var operatorHelp = map[string]string{
	"is_not":  "Another value than this one. The claim needs a default or required.",
	"not_in":  "None of these. The claim needs a default or required.",
	"all":     "Contains all of these.",
	"none":    "Contains none of these. The claim needs a default or required.",
	"prefix":  "Begins with this.",
	"glob":    "The whole value; * stops at / : @ and ** does not.",
	"regex":   "RE2, always the whole value.",
	"under":   "This domain or one below it.",
	"present": "Whether the claim is there, and is not an empty set.",
}

// anyKind is a condition on a claim whose type is not known.
func anyKind() schema {
	var ways []any
	for k := range kindNames {
		ways = append(ways, ref(conditionOn(kind(k))))
	}
	return schema{"anyOf": ways}
}

// token is a list of extra claims, copied from the named ones or constant.
func (w schemaWriter) token(description string, names schema) schema {
	from := schema{"anyOf": []any{names, someOf(names, "The first that is there.")}}
	return schema{
		"description": description, "type": "object",
		"propertyNames": schema{"minLength": 1, "not": schema{"enum": reservedClaims}},
		"additionalProperties": schema{"anyOf": []any{
			w.object([]string{"from"}, "A claim, copied.", schema{"from": from}, "from"),
			schema{"type": "object", "not": schema{"required": []string{"from"}}},
			schema{"type": []any{"string", "number", "boolean", "array"}},
		}},
	}
}

func (w schemaWriter) users() schema {
	names := w.claimNames(w.rules.names...)
	column := w.object(columnKeys, "", schema{
		"from": schema{"anyOf": []any{names, someOf(names, "The first that is there.")}},
		"on":   enum(columnOn, "When it is written. Default: login."),
	}, "from")
	return w.object(usersKeys, "What a login writes into the users row.", schema{"email": column, "name": column})
}

func (w schemaWriter) test() schema {
	claims := schema{"description": "As the provider sends them.", "type": "object"}
	token := schema{"description": "These are among the token's extra claims.", "type": "object"}
	return w.object(testKeys, "", schema{
		"name": textOf("What it shows."), "provider": w.providerName(), "claims": claims,
		"row": w.object([]string{"role"}, "The users row.", schema{"role": schema{"type": []any{"string", "number", "boolean", "null"}}}),
		"at":  help(ref("date"), "The day of the test; without it no `until` has passed."),
		"expect": schema{"description": "What must come out.", "anyOf": []any{
			schema{"const": "refused"},
			w.object(expectKeys, "", schema{"role": w.roleName(), "rule": textOf("The rule that decides, or default."), "token": token}, "role"),
		}},
		"refuse_if": schema{
			"description": "JSON merge patches of the claims; each one alone must end in a refusal.", "type": "array",
			"items": schema{"type": "object", "minProperties": 1},
		},
	}, "name", "claims", "expect")
}
