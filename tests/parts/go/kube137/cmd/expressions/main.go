// Command expressions compiles the CEL of ValidatingAdmissionPolicies as an API server of a given version would.
//
//	expressions 1.30 < policies.json
//
// It reads a JSON list of ValidatingAdmissionPolicies (admissionregistration.k8s.io/v1) and writes one JSON object:
//
//	{"errors": [{"policy": name, "field": path, "message": text}, ...]}
//
// Each expression is compiled twice by Kubernetes' own code. By the admission plugin's compiler, in the environment that
// an API server of that version has for new expressions: what came later is unknown there. And by the type checker of
// kube-controller-manager, which knows the fields of the kinds that a policy matches: what it finds would stand in the
// policy's status.typeChecking.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/google/cel-go/cel"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	"k8s.io/apimachinery/pkg/util/version"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kubernetes/pkg/generated/openapi"
)

type mistake struct {
	Policy  string `json:"policy"`
	Field   string `json:"field"`
	Message string `json:"message"`
}

type answer struct {
	Errors []mistake `json:"errors"`
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: expressions VERSION < policies.json")
	}
	found, err := check(os.Stdin, os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer{Errors: found}); err != nil {
		log.Fatal(err)
	}
}

func check(in io.Reader, wanted string) ([]mistake, error) {
	v, err := version.ParseMajorMinor(wanted)
	if err != nil {
		return nil, err
	}
	var policies []*admissionv1.ValidatingAdmissionPolicy
	decoder := json.NewDecoder(in)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&policies); err != nil {
		return nil, err
	}
	checker := &validating.TypeChecker{
		SchemaResolver: resolver.NewDefinitionsSchemaResolver(openapi.GetOpenAPIDefinitions, scheme.Scheme),
		RestMapper:     testrestmapper.TestOnlyStaticRESTMapper(scheme.Scheme),
	}
	environments := environment.MustBaseEnvSet(v)
	found := []mistake{}
	for _, policy := range policies {
		mistakes, err := compile(policy, environments)
		if err != nil {
			return nil, err
		}
		found = append(found, mistakes...)
		for _, warning := range checker.Check(policy) {
			found = append(found, mistake{policy.Name, warning.FieldRef, warning.Warning})
		}
	}
	return found, nil
}

// compile does what the admission plugin's compilePolicy does, and keeps what that only finds out at run time.
func compile(policy *admissionv1.ValidatingAdmissionPolicy, environments *environment.EnvSet) ([]mistake, error) {
	compiler, err := plugincel.NewCompositedCompiler(environments)
	if err != nil {
		return nil, err
	}
	var found []mistake
	hasParams := policy.Spec.ParamKind != nil
	withAuthorizer := plugincel.OptionalVariableDeclarations{HasParams: hasParams, HasAuthorizer: true}
	without := plugincel.OptionalVariableDeclarations{HasParams: hasParams}
	add := func(result plugincel.CompilationResult, format string, arguments ...any) {
		if result.Error != nil {
			found = append(found, mistake{policy.Name, fmt.Sprintf(format, arguments...), result.Error.Error()})
		}
	}
	for i, each := range policy.Spec.Variables {
		variable := &validating.Variable{Name: each.Name, Expression: each.Expression}
		result := compiler.CompileAndStoreVariable(variable, withAuthorizer, environment.NewExpressions)
		add(result, "spec.variables[%d].expression", i)
	}
	// Match conditions come before the variables: nothing of those is known to them.
	plain := plugincel.NewCompiler(environments)
	for i := range policy.Spec.MatchConditions {
		condition := (*matchconditions.MatchCondition)(&policy.Spec.MatchConditions[i])
		add(plain.CompileCELExpression(condition, withAuthorizer, environment.NewExpressions),
			"spec.matchConditions[%d].expression", i)
	}
	for i, each := range policy.Spec.Validations {
		condition := &validating.ValidationCondition{Expression: each.Expression}
		add(compiler.CompileCELExpression(condition, withAuthorizer, environment.NewExpressions),
			"spec.validations[%d].expression", i)
		if each.MessageExpression != "" {
			message := &text{each.MessageExpression}
			add(compiler.CompileCELExpression(message, without, environment.NewExpressions),
				"spec.validations[%d].messageExpression", i)
		}
	}
	for i, each := range policy.Spec.AuditAnnotations {
		annotation := &text{each.ValueExpression}
		add(compiler.CompileCELExpression(annotation, without, environment.NewExpressions),
			"spec.auditAnnotations[%d].valueExpression", i)
	}
	return found, nil
}

// text is an expression that must be a string.
type text struct{ expression string }

func (t *text) GetExpression() string    { return t.expression }
func (t *text) ReturnTypes() []*cel.Type { return []*cel.Type{cel.StringType} }
