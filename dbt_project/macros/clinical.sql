{#- A unit as seeds/units.csv lists it: lower case, no white space. -#}
{% macro spelled(unit) -%}
    lower(regexp_replace({{ unit }}, '\s', '', 'g'))
{%- endmacro %}

{#- The number in a censored result such as '<0.1' or '>= 600'; null for any other text. -#}
{% macro censored_number(text) -%}
    try_cast(regexp_extract({{ text }}, '^\s*[<>]=?\s*([-+]?[0-9]*[.]?[0-9]+)\s*$', 1) as double)
{%- endmacro %}

{% macro comparator(text) -%}
    nullif(regexp_extract({{ text }}, '^\s*([<>]=?)\s*[-+]?[0-9]*[.]?[0-9]+\s*$', 1), '')
{%- endmacro %}

{#- A drug's name without strength, brackets and doubled blanks, in lower case. -#}
{% macro drug_name(drug) -%}
    trim(regexp_replace(regexp_replace(regexp_replace(lower({{ drug }}),
        '\([^)]*\)', ' ', 'g'),
        '\b[0-9][0-9.,/]*\s*(mg|mcg|g|ug|ml|units?|unt|meq|mmol|%)(\s*/\s*[0-9.]*\s*[a-z]+)?(\s|$)', ' ', 'g'),
        '\s+', ' ', 'g'))
{%- endmacro %}
