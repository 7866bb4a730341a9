{#
    A model as a table of a database that is new and belongs to one bucket alone: there is nothing to keep, to swap with, to
    grant or to index, about which dbt-duckdb's own materialization asks at every model. Contracts are enforced as there.
#}
{% materialization table, adapter="duckdb", supported_languages=["sql", "python"] %}
    {%- set language = model["language"] -%}
    {%- set target_relation = this.incorporate(type="table") -%}
    {%- call statement("main", language=language) -%}
        {{ create_table_as(False, target_relation, compiled_code, language) }}
    {%- endcall -%}
    {% do adapter.commit() %}
    {{ return({"relations": [target_relation]}) }}
{% endmaterialization %}
