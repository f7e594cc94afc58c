package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// yesFlag is for commands that cannot be taken back.
type yesFlag struct {
	Yes bool `short:"y" help:"Do not ask. Needed where nobody can be asked, such as in scripts."`
}

// askable fails where a question would wait for nobody: before anything is looked at, so that a script fails the first time it runs.
func (f yesFlag) askable(env environment) error {
	if f.Yes || isTerminal(env.stdin) {
		return nil
	}
	return usageError{errors.New("this cannot be taken back: off a terminal it needs --yes; --dry-run shows what would happen; nothing was changed")}
}

// confirm asks for the word, unless --yes is the answer.
func (f yesFlag) confirm(env environment, question, word string) error {
	if f.Yes {
		return nil
	}
	fmt.Fprintf(env.stderr, "%s\nType %s to go on: ", plain(question), plain(word))
	typed := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(io.LimitReader(env.stdin, 1<<10)).ReadString('\n')
		typed <- strings.TrimSpace(line)
	}()
	select {
	case <-env.ctx.Done():
		fmt.Fprintln(env.stderr)
	case line := <-typed:
		if line == word {
			return nil
		}
	}
	return errors.New("not confirmed; nothing was changed")
}
