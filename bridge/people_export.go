package bridge

import (
	"context"
	"encoding/json"
)

// exportUser names every column that it returns: a column that is added later stays out until somebody adds it here, and what lets anybody
// use a session never comes in. Other people's rows are not in it; an event's reason may name the operator.
const exportUser = `
SELECT pg_catalog.jsonb_build_object(
	'user', pg_catalog.jsonb_build_object('id', u.id, 'app_user_id', u.app_user_id, 'role', u.role, 'email', u.email, 'name', u.name,
		'disabled_at', u.disabled_at, 'created_at', u.created_at, 'updated_at', u.updated_at, 'last_login_at', u.last_login_at),
	'identities', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('id', i.id, 'issuer', i.issuer, 'subject', i.subject,
			'provider', i.provider, 'claims', i.claims, 'created_at', i.created_at, 'last_login_at', i.last_login_at) ORDER BY i.id), '[]')
		FROM bridge.identities i WHERE i.user_id = u.id),
	'sessions', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('id', s.id, 'identity_id', s.identity_id, 'provider', s.provider,
			'provider_sid', s.provider_sid, 'claims', s.claims, 'role', s.role, 'row_role', s.row_role, 'rule', s.rule, 'ref', s.ref,
			'user_agent', s.user_agent, 'created_at', s.created_at, 'checked_at', s.checked_at,
			'last_seen_at', s.last_seen_at, 'idle_expires_at', s.idle_expires_at, 'expires_at', s.expires_at) ORDER BY s.created_at, s.id), '[]')
		FROM bridge.sessions s WHERE s.user_id = u.id),
	'events', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('id', e.id, 'at', e.at, 'kind', e.kind, 'ref', e.ref,
			'provider', e.provider, 'issuer', e.issuer, 'subject', e.subject, 'session_id', e.session_id, 'role', e.role, 'rule', e.rule,
			'rules_hash', e.rules_hash, 'reason', e.reason, 'claims', e.claims) ORDER BY e.id), '[]')
		FROM bridge.events e
		WHERE e.user_id = u.id OR (e.issuer, e.subject) IN (SELECT i.issuer, i.subject FROM bridge.identities i WHERE i.user_id = u.id)))
FROM bridge.users u WHERE u.id = $1`

// Export returns all that is stored about the person, as one JSON object: user, identities, sessions, events. What would let somebody use a
// session is not in it. Times are UTC.
func (p *People) Export(ctx context.Context, user Person) (json.RawMessage, error) {
	tx, err := p.conn.Begin(ctx)
	if err != nil {
		return nil, peopleError(err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	var out json.RawMessage
	_, err = tx.Exec(ctx, "SELECT pg_catalog.set_config('TimeZone', 'UTC', true)")
	if err == nil {
		err = tx.QueryRow(ctx, exportUser, user.ID).Scan(&out)
	}
	return out, peopleError(err)
}
