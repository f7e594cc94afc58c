package main

import (
	"fmt"

	"github.com/oidc-bridge/oidc-bridge/migrations"
)

type migrateCommand struct{ databaseFlag }

func (migrateCommand) Help() string {
	return `Connects with database.owner_url (the first time its role needs CREATE on the database) and grants the role of database.url what
the service needs. It may run on any number of machines at once, and again and again.

Example:

  DATABASE_OWNER_URL=postgres://bridge_owner@db/app DATABASE_URL=postgres://bridge_runtime@db/app oidc-bridge migrate`
}

func (c migrateCommand) Run(env environment) error {
	database, err := c.database(env)
	if err != nil {
		return err
	}
	runtimeRole, err := database.RuntimeRole()
	if err != nil {
		return err
	}
	fmt.Fprintln(env.stderr, "migrating schema bridge …")
	applied, err := migrations.Up(env.ctx, database.OwnerURL.Reveal(), runtimeRole)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	for _, name := range applied {
		fmt.Fprintln(env.stdout, "applied", name)
	}
	if len(applied) == 0 {
		fmt.Fprintln(env.stdout, "nothing to do: schema bridge is up to date")
	}
	return nil
}
