// A stand-in for the provider hashicorp/null, which other projects' configurations name: a resource that is nothing but an identity. The
// real one's Go module can't be had by its path.
package main

import (
	"context"
	"crypto/rand"
	"log"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/mapplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type nothing struct{}

func (nothing) Metadata(_ context.Context, _ provider.MetadataRequest, answer *provider.MetadataResponse) {
	answer.TypeName = "null"
}

func (nothing) Schema(context.Context, provider.SchemaRequest, *provider.SchemaResponse) {}

func (nothing) Configure(context.Context, provider.ConfigureRequest, *provider.ConfigureResponse) {}

func (nothing) DataSources(context.Context) []func() datasource.DataSource { return nil }

func (nothing) Resources(context.Context) []func() resource.Resource {
	return []func() resource.Resource{func() resource.Resource { return &identity{} }}
}

type identity struct{}

type model struct {
	ID       types.String `tfsdk:"id"`
	Triggers types.Map    `tfsdk:"triggers"`
}

func (*identity) Metadata(_ context.Context, request resource.MetadataRequest, answer *resource.MetadataResponse) {
	answer.TypeName = request.ProviderTypeName + "_resource"
}

func (*identity) Schema(_ context.Context, _ resource.SchemaRequest, answer *resource.SchemaResponse) {
	answer.Schema = schema.Schema{Attributes: map[string]schema.Attribute{
		"id": schema.StringAttribute{
			Computed:      true,
			PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
		},
		"triggers": schema.MapAttribute{
			Optional:      true,
			ElementType:   types.StringType,
			PlanModifiers: []planmodifier.Map{mapplanmodifier.RequiresReplace()},
		},
	}}
}

func (*identity) Create(ctx context.Context, request resource.CreateRequest, answer *resource.CreateResponse) {
	var wanted model
	answer.Diagnostics.Append(request.Plan.Get(ctx, &wanted)...)
	if answer.Diagnostics.HasError() {
		return
	}
	wanted.ID = types.StringValue(rand.Text())
	answer.Diagnostics.Append(answer.State.Set(ctx, wanted)...)
}

func (*identity) Read(context.Context, resource.ReadRequest, *resource.ReadResponse) {}

func (*identity) Update(ctx context.Context, request resource.UpdateRequest, answer *resource.UpdateResponse) {
	answer.State.Raw = request.Plan.Raw
}

func (*identity) Delete(context.Context, resource.DeleteRequest, *resource.DeleteResponse) {}

func main() {
	options := providerserver.ServeOpts{Address: "registry.terraform.io/hashicorp/null"}
	if err := providerserver.Serve(context.Background(), func() provider.Provider { return nothing{} }, options); err != nil {
		log.Fatal(err)
	}
}
