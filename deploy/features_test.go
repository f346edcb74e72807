package deploy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v2"
)

// stub is a program in place of another one that prints its arguments, one a line.
func stub(t *testing.T, dir, name, body string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body), 0o777); err != nil {
		t.Fatal(err)
	}
}

// printed is what a script prints in which cyclecap prints its arguments.
func printed(t *testing.T, env []string, script ...string) string {
	t.Helper()
	dir := t.TempDir()
	stub(t, dir, "cyclecap", `printf '%s\n' "$@"`)
	stub(t, dir, "srun", `exec "$@"`)
	c := exec.Command(script[0], script[1:]...)
	c.Env = append([]string{"PATH=" + dir + ":" + os.Getenv("PATH")}, env...)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// hasFlags checks that features has the options in a list of arguments, and that the shard is as expected.
func hasFlags(t *testing.T, args, shard string) {
	t.Helper()
	help, err := exec.Command("go", "run", "../cli/cyclecap", "features", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(args, "features\n") || !strings.Contains(args, "\n--shard\n"+shard+"\n") {
		t.Errorf("the arguments are\n%s", args)
	}
	flags := regexp.MustCompile(`(?m)^--?[a-z-]+$`).FindAllString(args, -1)
	if len(flags) < 5 {
		t.Errorf("the options are %q", flags)
	}
	for _, flag := range flags {
		if !strings.Contains(string(help), flag+" ") {
			t.Errorf("features has no option %s", flag)
		}
	}
}

// TestSlurm runs the script of a task as Slurm does.
func TestSlurm(t *testing.T) {
	text, err := os.ReadFile("features.slurm")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("bash", "-n", "features.slurm").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.HasPrefix(string(text), "#!/bin/bash\n") {
		t.Error("sbatch needs an interpreter in the first line")
	}
	// sbatch stops reading options at the first command.
	if options, commands := strings.LastIndex(string(text), "\n#SBATCH "), strings.Index(string(text), "\nset -euo pipefail\n"); options < 0 || commands < options {
		t.Error("options of sbatch come after a command, where it does not read them")
	}
	if !regexp.MustCompile(`(?m)^#SBATCH --array=0-[0-9]+$`).Match(text) || !strings.Contains(string(text), "\n#SBATCH --requeue\n") {
		t.Error("no array from 0, or tasks of a node that fails are not started again")
	}
	env := []string{"SLURM_ARRAY_TASK_ID=3", "SLURM_ARRAY_TASK_COUNT=16", "SLURM_CPUS_PER_TASK=8"}
	args := printed(t, env, "bash", "features.slurm", "my clip.pt", "out dir/", "a b.tar", "{0..9}.tar")
	hasFlags(t, args, "4/16")
	if !strings.HasSuffix(args, "\n-o\nout dir/\n--images\na b.tar\n{0..9}.tar\n") || !strings.Contains(args, "\nmy clip.pt\n") {
		t.Errorf("the arguments are\n%s", args)
	}
	env[1] = "SLURM_ARRAY_TASK_COUNT=1"
	hasFlags(t, printed(t, append(env, "SHARDS=16"), "bash", "features.slurm", "c", "o/", "i"), "4/16")
	out, err := exec.Command("bash", "features.slurm", "c").CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 2 || !strings.Contains(string(out), "usage:") {
		t.Errorf("%v\n%s", err, out)
	}
}

// job is what the test reads of a Job.
type job struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name string }
	Spec       struct {
		CompletionMode       string `yaml:"completionMode"`
		Completions          int
		Parallelism          int
		BackoffLimitPerIndex *int `yaml:"backoffLimitPerIndex"`
		MaxFailedIndexes     *int `yaml:"maxFailedIndexes"`
		PodFailurePolicy     struct {
			Rules []struct {
				Action      string
				OnExitCodes struct {
					ContainerName string `yaml:"containerName"`
					Operator      string
					Values        []int
				} `yaml:"onExitCodes"`
				OnPodConditions []struct{ Type string } `yaml:"onPodConditions"`
			}
		} `yaml:"podFailurePolicy"`
		Template struct {
			Spec struct {
				RestartPolicy   string `yaml:"restartPolicy"`
				SecurityContext struct {
					RunAsNonRoot bool `yaml:"runAsNonRoot"`
					RunAsUser    int  `yaml:"runAsUser"`
				} `yaml:"securityContext"`
				Containers []struct {
					Name, Image   string
					Command, Args []string
					Env           []struct{ Name, Value string }
					VolumeMounts  []struct {
						Name      string
						MountPath string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
				}
				Volumes []struct {
					Name                  string
					PersistentVolumeClaim struct {
						ClaimName string `yaml:"claimName"`
					} `yaml:"persistentVolumeClaim"`
				}
			}
		}
	}
}

// TestKubernetes reads the Job and runs the command of a pod as Kubernetes does.
func TestKubernetes(t *testing.T) {
	text, err := os.ReadFile("features-job.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var j job
	if err := yaml.Unmarshal(text, &j); err != nil {
		t.Fatal(err)
	}
	s := j.Spec
	if j.APIVersion != "batch/v1" || j.Kind != "Job" || j.Metadata.Name == "" || s.CompletionMode != "Indexed" || s.Completions < 1 || s.Parallelism < 1 {
		t.Errorf("no indexed Job: %+v", j)
	}
	// backoffLimitPerIndex needs the policy Never, and bounds what one shard with bad photos may fail.
	if s.BackoffLimitPerIndex == nil || s.MaxFailedIndexes == nil || *s.MaxFailedIndexes > s.Completions || s.Template.Spec.RestartPolicy != "Never" {
		t.Errorf("failures of a shard end the others: %+v", s)
	}
	if len(s.Template.Spec.Containers) != 1 {
		t.Fatalf("%d containers", len(s.Template.Spec.Containers))
	}
	c := s.Template.Spec.Containers[0]
	for _, r := range s.PodFailurePolicy.Rules {
		codes := r.OnExitCodes
		if (len(r.OnPodConditions) == 0) == (codes.ContainerName == "") || codes.ContainerName != "" && codes.ContainerName != c.Name {
			t.Errorf("a rule needs conditions or exit codes of the container: %+v", r)
		}
	}
	if len(s.PodFailurePolicy.Rules) != 2 {
		t.Errorf("%d rules", len(s.PodFailurePolicy.Rules))
	}
	containerfile, err := os.ReadFile("Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	if user := s.Template.Spec.SecurityContext; !user.RunAsNonRoot || !strings.Contains(string(containerfile), fmt.Sprintf("USER %d:", user.RunAsUser)) {
		t.Errorf("the user is not that of the Containerfile: %+v", user)
	}
	if len(c.VolumeMounts) != 1 || len(s.Template.Spec.Volumes) != 1 || c.VolumeMounts[0].Name != s.Template.Spec.Volumes[0].Name || s.Template.Spec.Volumes[0].PersistentVolumeClaim.ClaimName == "" {
		t.Errorf("volumes %+v at %+v", s.Template.Spec.Volumes, c.VolumeMounts)
	}
	env := []string{"JOB_COMPLETION_INDEX=15"} // Kubernetes sets it
	for _, e := range c.Env {
		env = append(env, e.Name+"="+e.Value)
	}
	args := printed(t, env, append(append([]string{}, c.Command...), c.Args...)...)
	hasFlags(t, args, fmt.Sprintf("16/%d", s.Completions))
	for _, word := range []string{"/data/cc3m/{00000..00331}.tar", "/data/index/"} {
		if !strings.Contains(args, "\n"+word+"\n") || !strings.HasPrefix(word, c.VolumeMounts[0].MountPath+"/") {
			t.Errorf("no %s in\n%s", word, args)
		}
	}
}
