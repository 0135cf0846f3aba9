// A provider of files, for the tests: what it makes can be changed behind an engine's back, by anybody with an editor.
package main

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"log"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// The address that configurations know it by.
const address = "charter.test/tests/file"

type files struct{}

func (files) Metadata(_ context.Context, _ provider.MetadataRequest, answer *provider.MetadataResponse) {
	answer.TypeName = "file"
}

func (files) Schema(context.Context, provider.SchemaRequest, *provider.SchemaResponse) {}

func (files) Configure(context.Context, provider.ConfigureRequest, *provider.ConfigureResponse) {}

func (files) DataSources(context.Context) []func() datasource.DataSource { return nil }

func (files) Resources(context.Context) []func() resource.Resource {
	return []func() resource.Resource{func() resource.Resource { return &file{} }}
}

// A file, with its text.
type file struct{}

type model struct {
	Path    types.String `tfsdk:"path"`
	Content types.String `tfsdk:"content"`
	Secret  types.String `tfsdk:"secret"`
}

func (*file) Metadata(_ context.Context, request resource.MetadataRequest, answer *resource.MetadataResponse) {
	answer.TypeName = request.ProviderTypeName + "_text"
}

func (*file) Schema(_ context.Context, _ resource.SchemaRequest, answer *resource.SchemaResponse) {
	answer.Schema = schema.Schema{Attributes: map[string]schema.Attribute{
		"path": schema.StringAttribute{
			Required:      true,
			PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()},
		},
		"content": schema.StringAttribute{Required: true},
		// Kept in the state, and never shown.
		"secret": schema.StringAttribute{Optional: true, Sensitive: true},
	}}
}

func write(wanted model, diagnostics *diag.Diagnostics) {
	if err := os.WriteFile(wanted.Path.ValueString(), []byte(wanted.Content.ValueString()), 0o644); err != nil {
		diagnostics.AddError("The file can't be written", err.Error())
	}
}

func (*file) Create(ctx context.Context, request resource.CreateRequest, answer *resource.CreateResponse) {
	var wanted model
	answer.Diagnostics.Append(request.Plan.Get(ctx, &wanted)...)
	if answer.Diagnostics.HasError() {
		return
	}
	if _, err := os.Stat(wanted.Path.ValueString()); !errors.Is(err, fs.ErrNotExist) {
		answer.Diagnostics.AddError("The file is there already", wanted.Path.ValueString())
		return
	}
	write(wanted, &answer.Diagnostics)
	if !answer.Diagnostics.HasError() {
		answer.Diagnostics.Append(answer.State.Set(ctx, wanted)...)
	}
}

func (*file) Read(ctx context.Context, request resource.ReadRequest, answer *resource.ReadResponse) {
	var known model
	answer.Diagnostics.Append(request.State.Get(ctx, &known)...)
	if answer.Diagnostics.HasError() {
		return
	}
	text, err := os.ReadFile(known.Path.ValueString())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		answer.State.RemoveResource(ctx)
	case err != nil:
		answer.Diagnostics.AddError("The file can't be read", err.Error())
	default:
		answer.Diagnostics.Append(answer.State.SetAttribute(ctx, path.Root("content"), string(text))...)
	}
}

func (*file) Update(ctx context.Context, request resource.UpdateRequest, answer *resource.UpdateResponse) {
	var wanted model
	answer.Diagnostics.Append(request.Plan.Get(ctx, &wanted)...)
	if answer.Diagnostics.HasError() {
		return
	}
	write(wanted, &answer.Diagnostics)
	if !answer.Diagnostics.HasError() {
		answer.Diagnostics.Append(answer.State.Set(ctx, wanted)...)
	}
}

func (*file) Delete(ctx context.Context, request resource.DeleteRequest, answer *resource.DeleteResponse) {
	var known model
	answer.Diagnostics.Append(request.State.Get(ctx, &known)...)
	if answer.Diagnostics.HasError() {
		return
	}
	if err := os.Remove(known.Path.ValueString()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		answer.Diagnostics.AddError("The file can't be removed", err.Error())
	}
}

func main() {
	debug := flag.Bool("debug", false, "run under a debugger")
	flag.Parse()
	options := providerserver.ServeOpts{Address: address, Debug: *debug}
	if err := providerserver.Serve(context.Background(), func() provider.Provider { return files{} }, options); err != nil {
		log.Fatal(err)
	}
}
