// What a dashboard of deploy/grafana must be, in the words of @grafana/schema. Enumerations become
// the texts that JSON holds; panels, queries, variables and links are narrowed to those we use.
// "grafana-dashboard" is the schema's own file, whose name differs between versions.
import type * as dashboard from "grafana-dashboard";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as bargauge from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as text from "@grafana/schema/dist/esm/raw/composable/text/panelcfg/x/TextPanelCfg_types.gen";

// Tuples of no known length stay lists, texts of no enumeration stay texts.
type Plain<T> = T extends string
  ? `${T}`
  : T extends Array<infer Item>
    ? Array<Plain<Item>>
    : T extends object
      ? { [Key in keyof T]: Plain<T[Key]> }
      : T;

// Of Grafana's units those in use; another is a slip until it is added here.
type Unit =
  | "none"
  | "locale"
  | "s"
  | "bytes"
  | "percentunit"
  | "reqps"
  | "ops"
  | "dateTimeFromNow";

type Source =
  | { type: "prometheus"; uid: "sessionwatch-prometheus" }
  | { type: "grafana-postgresql-datasource"; uid: "sessionwatch-postgres" };

interface PrometheusQuery {
  refId: string;
  datasource: Source;
  editorMode: "code";
  expr: string;
  legendFormat: string;
  range: boolean;
  instant: boolean;
  format?: "table";
}

interface PostgresQuery {
  refId: string;
  datasource: Source;
  editorMode: "code";
  format: "table" | "time_series";
  rawQuery: true;
  rawSql: string;
}

interface Link {
  title: string;
  url: string;
}

type Mapping = Plain<dashboard.ValueMapping>;

type Changed =
  | { id: "unit"; value: Unit }
  | { id: "noValue"; value: string }
  | { id: "links"; value: Link[] }
  | { id: "mappings"; value: Mapping[] }
  | { id: "custom.width"; value: number }
  | { id: "custom.cellOptions"; value: Plain<table.FieldConfig["cellOptions"]> };

interface Override {
  matcher: { id: "byName" | "byRegexp"; options: string };
  properties: Changed[];
}

type Fields<Custom> = {
  defaults: Omit<Plain<dashboard.FieldConfig>, "custom" | "links" | "unit"> & {
    unit: Unit;
    links?: Link[];
    custom?: Plain<Custom>;
  };
  overrides: Override[];
};

type Common = Omit<
  Plain<dashboard.Panel>,
  "type" | "options" | "fieldConfig" | "targets" | "datasource"
>;

type Asking<Type extends string, Options, Custom> = Common & {
  type: Type;
  datasource: Source;
  targets: PrometheusQuery[] | PostgresQuery[];
  fieldConfig: Fields<Custom>;
  options: Partial<Plain<Options>>;
};

type Shown =
  | Asking<"stat", stat.Options, never>
  | Asking<"timeseries", timeseries.Options, timeseries.FieldConfig>
  | Asking<"table", table.Options, table.FieldConfig>
  | Asking<"bargauge", bargauge.Options, never>
  | (Common & { type: "text"; options: Plain<text.Options> })
  | Plain<dashboard.RowPanel>;

type Variable = Omit<Plain<dashboard.VariableModel>, "type" | "datasource"> & {
  type: "query" | "custom" | "textbox";
  datasource?: Source;
};

export type Provisioned = Omit<Plain<dashboard.Dashboard>, "panels" | "templating"> & {
  uid: string;
  title: string;
  panels: Shown[];
  templating: { list: Variable[] };
};
