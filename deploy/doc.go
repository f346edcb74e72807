// Package deploy has no code: its test holds the files of this folder to the options of the command.
package deploy
